// Intermediates that announce themselves, seen by an index: in this process, and as processes that are killed and stopped.
import { pathToFileURL } from 'node:url';
import { afterEach, describe, expect, it } from 'vitest';
import {
  type Intermediate,
  type IntermediateOptions,
  startIntermediate,
} from '#abdm/host/intermediate/intermediate.js';
import { MamNode } from '#abdm/host/mam/node.js';
import { OPEN } from '#abdm/host/wire/security.js';
import { group, openIndex, withKey } from '../mam/ether.js';
import { type Child, child } from '../temp.js';
import { until } from '../wire/pair.js';

const MiB = 2 ** 20;
const security = withKey(7);
const started: Intermediate[] = [];

async function start(options: Partial<IntermediateOptions>): Promise<Intermediate> {
  const node = await startIntermediate({ listen: '127.0.0.1:0', memoryBytes: 64 * MiB, security, ...options });
  started.push(node);
  return node;
}

/** An intermediate in a process of its own. */
function startProcess(place: string, listen = '127.0.0.1:0'): Promise<Child> {
  const module = pathToFileURL('dist/host/intermediate/intermediate.js').href;
  const options = `{ listen: '${listen}', memoryBytes: ${64 * MiB}, announcements: ['${place}'], security: { clusterKey: new Uint8Array(32).fill(7), tls: null } }`;
  const script = `import { startIntermediate } from '${module}'; console.log((await startIntermediate(${options})).address);`;
  return child(process.execPath, ['--input-type=module', '-e', script]);
}

afterEach(async () => {
  await Promise.all(started.splice(0).map((node) => node.close()));
});

describe('an intermediate', () => {
  it('announces who and where it is and what room it has, and says goodbye', async () => {
    const place = group();
    const index = await openIndex({ security, announcements: [place] });
    const node = await start({ announcements: [place] });
    await until(() => index.nodes().length === 1, 2000);
    const known = { id: node.id, address: node.address, freeBytes: 64 * MiB, memoryBytes: 64 * MiB, suspect: false };
    expect(index.nodes()).toMatchObject([{ ...known, connections: 0 }]);

    const client = await MamNode.connect(node.address, { migration: 'a'.repeat(32), role: 'source', security });
    await until(() => index.nodes()[0]!.connections === 2);
    expect(index.nodes()[0]!.load).toBeGreaterThan(0);
    client.end();
    const other = await start({ announcements: [place] });
    await until(() => index.nodes().length === 2);
    expect(other.id).not.toBe(node.id);

    started.shift();
    await node.close();
    await until(() => index.nodes().length === 1);
    expect(index.nodes()).toMatchObject([{ id: other.id, suspect: false }]);
    expect(index.counts).toMatchObject({ forged: 0, replayed: 0, stale: 0, malformed: 0 });
  });

  it('announces to a group and to peers, each of whom hears it once', async () => {
    const place = group();
    const peer = `127.0.0.2:${place.split(':')[1]}`;
    const index = await openIndex({ security, announcements: [place, peer] });
    await start({ announcements: [place, peer] });
    await until(() => index.counts.heard >= 4);
    expect(index.nodes()).toHaveLength(1);
    expect(index.counts.replayed).toBe(0);
  });

  it('announces without a key too, on loopback', async () => {
    const place = group();
    const index = await openIndex({ security: OPEN, announcements: [place] });
    await start({ security: OPEN, announcements: [place] });
    await until(() => index.nodes().length === 1);
    await expect(start({ security: OPEN, announcements: ['10.0.0.9:7077'] })).rejects.toThrow(/stay on loopback/);
  });

  it('does not announce what nobody could use, and then does not listen either', async () => {
    const announcements = [group()];
    const wildcard = start({ listen: '0.0.0.0:0', announcements });
    await expect(wildcard).rejects.toThrow(/0\.0\.0\.0:\d+: say with --announce HOST:PORT/);
    const tls = { clusterKey: null, tls: { cert: '', key: '', ca: '' } };
    await expect(start({ security: tls, announcements })).rejects.toMatchObject({ code: 'USAGE' });
    await expect(start({ announcements: ['nowhere'] })).rejects.toMatchObject({ code: 'USAGE' });
  });

  it('tells once where it cannot announce, and goes on elsewhere', async () => {
    const place = group();
    const index = await openIndex({ security, announcements: [place] });
    const events: string[] = [];
    await start({
      announcements: ['nobody.invalid:7077', place],
      onEvent: (event) => event.type === 'announce-failed' && events.push(event.error.message),
    });
    await until(() => index.counts.heard >= 3 && events.length > 0, 30_000);
    expect(events).toEqual([expect.stringMatching(/^cannot announce to nobody\.invalid:7077: /)]);
  });
});

describe('processes', () => {
  it('are seen within two seconds, suspect when killed, and replaced by who comes after them', async () => {
    const place = group();
    const index = await openIndex({ security, announcements: [place] });
    const first = await startProcess(place);
    await until(() => index.nodes().length === 1, 2000);
    const [before] = index.nodes();
    expect(before).toMatchObject({ address: first.line, suspect: false });

    first.process.kill('SIGKILL');
    await first.ended;
    await until(() => index.nodes()[0]!.suspect);
    // Announcements are a second apart: it has missed three, and not four.
    expect(index.nodes()[0]!.heardMsAgo).toBeGreaterThan(3000);
    expect(index.nodes()[0]!.heardMsAgo).toBeLessThan(6000);

    await startProcess(place, first.line);
    await until(() => !index.nodes()[0]!.suspect);
    expect(index.nodes()).toHaveLength(1);
    expect(index.nodes()[0]!.id).not.toBe(before!.id);
  });

  it('are suspect while they are stopped, and up again when they go on', async () => {
    const place = group();
    const index = await openIndex({ security, announcements: [place] });
    const node = await startProcess(place);
    await until(() => index.nodes().length === 1);
    node.process.kill('SIGSTOP');
    await until(() => index.nodes()[0]!.suspect);
    node.process.kill('SIGCONT');
    await until(() => !index.nodes()[0]!.suspect);
  });

  it('are not suspect because it was the client who was busy', async () => {
    const place = group();
    const index = await openIndex({ security, announcements: [place] });
    await startProcess(place);
    await until(() => index.nodes().length === 1);
    const { heard } = index.counts;
    let suspected = false;
    index.onChange(() => {
      suspected ||= index.nodes()[0]!.suspect;
    });
    for (const end = performance.now() + 4500; performance.now() < end; );
    await until(() => index.counts.heard > heard + 4);
    expect(suspected).toBe(false);
  });
});
