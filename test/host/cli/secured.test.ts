// Roles that are told who may speak to them: by a key, by certificates as people make them, or not at all.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { loadSecurity } from '#abdm/host/wire/security.js';
import { Abdm, cleanUp, clusterKey, directory, intermediates } from './processes.js';
import { keptBytes, Scene } from './scene.js';

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(cleanUp);

const expectArrived = () => expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);

/** A migration over two nodes, all roles with this environment. */
async function start(env: Record<string, string>, ...how: string[]) {
  const { list } = await intermediates(2, '256M', env);
  const destination = new Abdm(['merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0'], env);
  const to = await destination.address();
  const source = new Abdm(['eject', `a=file:${scene.image}`, '--to', to, '--intermediates', list, ...how], env);
  return { list, destination, to, source };
}

describe('with a key', () => {
  test('a migration is watched, steered and cancelled as without one', async () => {
    const keyFile = clusterKey();
    const { list, destination, source } = await start({ ABDM_KEY: keyFile }, '--rate', '2MB', '--replicas', '2');
    await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    // Whoever steers needs no key: he is the same user on the same host.
    const { events } = await new Abdm(['status']).done;
    const eject = events.find(({ role }) => role === 'eject');
    expect(eject.status).toMatchObject({ phase: 'dividing', rateBytesPerS: 2e6 });
    expect(events.map(({ role }) => role).sort()).toEqual(['eject', 'intermediate', 'intermediate', 'merge']);
    expect((await new Abdm(['rate', 'a', '1MB', '--role', 'eject']).done).code).toBe(0);
    await source.event(({ type, rateBytesPerS }) => type === 'progress' && rateBytesPerS === 1e6);
    expect((await new Abdm(['cancel', 'a', '--reason', 'enough']).done).code).toBe(0);
    const security = loadSecurity({ keyFile });
    for (const address of list.split(',')) expect(await keptBytes(address, 256 * 2 ** 20, security)).toBe(0);
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(left.summary.reason).toEqual({ code: 'CANCELLED', message: 'enough' });
    scene.expectNoOutput();
  });

  test('a source that has another key is refused, and the right one is served after it', async () => {
    const env = { ABDM_KEY: clusterKey() };
    const { list } = await intermediates(1, '256M', env);
    const destination = new Abdm(['merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0'], env);
    const args = ['eject', `a=file:${scene.image}`, '--to', await destination.address(), '--intermediates', list];
    const foreign = await new Abdm(args, { ABDM_KEY: clusterKey() }).done;
    expect(foreign.code).toBe(2);
    expect(foreign.summary).toMatchObject({ outcome: 'aborted', reason: { code: 'UNAUTHENTICATED' } });
    const keyless = await new Abdm(args).done;
    expect(keyless.code).toBe(2);
    expect(keyless.events.at(-1)).toBe(keyless.summary);
    const [left, merged] = await Promise.all([new Abdm(args, env).done, destination.done]);
    expect([left.code, merged.code]).toEqual([0, 0]);
    expectArrived();
  });
});

const hasOpenssl = (() => {
  try {
    execFileSync('openssl', ['version']);
    return true;
  } catch {
    return false;
  }
})();

/** A certificate authority in a directory, and a certificate of it, as the manual of openssl has it. */
function certificates(): Record<string, string> {
  const dir = directory();
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...made, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=abdm test');
  openssl('req', ...made, '-keyout', 'node.key', '-out', 'node.csr', '-subj', '/CN=node');
  const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2'];
  openssl('x509', '-req', '-in', 'node.csr', ...by, '-out', 'node.pem');
  const path = (name: string) => join(dir, name);
  return { ABDM_TLS_CERT: path('node.pem'), ABDM_TLS_KEY: path('node.key'), ABDM_TLS_CA: path('ca.pem') };
}

describe.skipIf(!hasOpenssl)('with certificates (made by openssl)', () => {
  test('a VM moves; who is certified by others, or by nobody, is refused', async () => {
    const env = certificates();
    const { list } = await intermediates(2, '256M', env);
    const destination = new Abdm(['merge', `a=file:${scene.out}`, '--listen', '127.0.0.1:0'], env);
    const to = await destination.address();
    const args = ['eject', `a=file:${scene.image}`, '--to', to, '--intermediates', list, '--replicas', '2'];
    const foreign = await new Abdm(args, certificates()).done;
    expect(foreign.code).toBe(2);
    expect(foreign.summary.reason.code).toBe('UNAUTHENTICATED');
    expect((await new Abdm(args).done).code).toBe(2);
    const [left, merged] = await Promise.all([new Abdm(args, env).done, destination.done]);
    expect(left.summary?.reason ?? null).toBeNull();
    expect([left.code, merged.code]).toEqual([0, 0]);
    expectArrived();
  });

  test('a VM is parked and taken in', async () => {
    const env = certificates();
    const { list } = await intermediates(2, '256M', env);
    const where = ['--vm-key', join(scene.dir, 'a.vmkey'), '--intermediates', list];
    expect((await new Abdm(['eject', `a=file:${scene.image}`, '--park', ...where], env).done).code).toBe(0);
    expect((await new Abdm(['merge', `a=file:${scene.out}`, '--parked', ...where], env).done).code).toBe(0);
    expectArrived();
  });
});

test('without a key nobody leaves loopback: the error says what to give', async () => {
  const cases = [
    ['intermediate', '--listen', '0.0.0.0:0', '--memory', '16M'],
    ['merge', `a=file:${scene.out}`, '--listen', '0.0.0.0:0'],
    ['eject', `a=file:${scene.image}`, '--to', '192.0.2.1:7000', '--direct'],
    ['eject', `a=file:${scene.image}`, '--to', '127.0.0.1:7000', '--intermediates', '192.0.2.1:7000'],
    ['eject', `a=file:${scene.image}`, '--park', '--vm-key', join(scene.dir, 'k'), '--intermediates', '192.0.2.1:7000'],
    ['merge', `a=file:${scene.out}`, '--parked', '--vm-key', clusterKey(), '--intermediates', '192.0.2.1:7000'],
    ['renew', 'a', '--lease', '1h', '--intermediates', '192.0.2.1:7000'],
  ];
  for (const args of cases) {
    const { code, events } = await new Abdm(args).done;
    const error = { type: 'error', code: 'USAGE', message: expect.stringMatching(/--key/) };
    expect({ args, code, last: events.at(-1) }).toEqual({ args, code: 1, last: error });
  }
  scene.expectNoOutput();
});
