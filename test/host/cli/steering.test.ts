// What one terminal sees of, and does to, the roles that another one has started: abdm status, cancel and rate, with real processes.
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { Abdm, cleanUp, directory, intermediates, surroundings } from './processes.js';
import { keptBytes, Scene } from './scene.js';

const MAIN = fileURLToPath(new URL('../../../dist/host/cli/main.js', import.meta.url));

let scene: Scene;
beforeEach(() => {
  scene = new Scene();
});
afterEach(cleanUp);

/** What people are shown by a command that ends by itself. */
function shown(...args: string[]): Promise<{ code: number; text: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [MAIN, ...args], { env: surroundings() }, (error, _, text) => {
      resolve({ code: error ? Number(error.code) : 0, text });
    });
  });
}

/** A migration of 16 MiB at 2 MB/s that has begun to send. */
async function slowMigration() {
  const { list } = await intermediates(1);
  const { destination, to } = await scene.startMerge();
  const source = scene.startEject(to, '--intermediates', list, '--rate', '2MB');
  await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
  return { source, destination, list };
}

/** The destination of a migration whose source has left already; it gathers at this rate. */
async function slowMerge(rate: string): Promise<Abdm> {
  const { list } = await intermediates(1);
  const { destination, to } = await scene.startMerge('--rate', rate);
  expect((await scene.startEject(to, '--intermediates', list).done).code).toBe(0);
  return destination;
}

describe('abdm status', () => {
  test('shows all three roles, with phase, progress, limit and nodes', async () => {
    const { source, destination, list } = await slowMigration();
    const { code, events } = await new Abdm(['status']).done;
    expect(code).toBe(0);
    const roles = Object.fromEntries(events.map((event) => [event.role, event]));
    expect(Object.keys(roles).sort()).toEqual(['eject', 'intermediate', 'merge']);
    expect(roles.eject).toMatchObject({ type: 'role', pid: source.child.pid, names: ['a'] });
    expect(roles.eject.status).toMatchObject({
      phase: 'dividing',
      rateBytesPerS: 2e6,
      totalBytes: 2 ** 24,
      reason: null,
    });
    expect(roles.eject.status.doneBytes).toBeGreaterThan(1e6);
    expect(roles.eject.status.bytesPerS).toBeGreaterThan(0);
    expect(roles.eject.status.nodes[0]).toMatchObject({ address: list });
    expect(roles.merge).toMatchObject({ pid: destination.child.pid, names: ['a'] });
    expect(roles.merge.status).toMatchObject({ phase: 'gathering', rateBytesPerS: null });
    expect(roles.intermediate).toMatchObject({ names: [list] });
    expect(roles.intermediate.status.keptBytes).toBeGreaterThan(0);

    const { text } = await shown('status');
    expect(text).toMatch(/^eject a \(process \d+\): dividing \d+ %.* of 16\.8 MB.*at most 2\.0 MB\/s$/m);
    expect(text).toMatch(/^merge a \(process \d+\): gathering \d+ %/m);
    expect(text).toMatch(/^intermediate 127\.0\.0\.1:\d+ \(process \d+\): .* of 268\.4 MB free, \d+ frames$/m);
    expect((await new Abdm(['status', list]).done).events).toHaveLength(1);
  });

  test('goes on with --watch until it is interrupted', async () => {
    const { nodes } = await intermediates(1);
    const watching = new Abdm(['status', '--watch']);
    await watching.event(({ status }) => status?.frames === 0);
    const { destination } = await scene.startMerge();
    await watching.event(({ role, status }) => role === 'merge' && status.phase === 'waiting');
    await destination.stop();
    await nodes[0]!.stop();
    expect((await watching.stop('SIGINT')).signal).toBe('SIGINT');
  });

  test('says that nothing runs, that nobody has a name, and who does not answer', async () => {
    expect(await shown('status')).toMatchObject({ code: 0, text: expect.stringContaining('no role') });
    const { destination } = await scene.startMerge();
    const nobody = await shown('status', 'b');
    expect(nobody).toMatchObject({ code: 1, text: expect.stringMatching(/nobody is called b.*there are a/) });
    destination.child.kill('SIGSTOP');
    const { events } = await new Abdm(['status']).done;
    destination.child.kill('SIGCONT');
    expect(events).toEqual([{ type: 'silent', pid: destination.child.pid }]);
  });

  test('does not trust a directory that others may enter; roles run without, and say so', async () => {
    const open = directory();
    const env = { XDG_RUNTIME_DIR: open };
    mkdirSync(`${open}/abdm`);
    chmodSync(`${open}/abdm`, 0o777);
    const node = new Abdm(['intermediate', '--listen', '127.0.0.1:0', '--memory', '16M'], env);
    await node.address();
    const notice = await node.event(({ type, text }) => type === 'notice' && /status/.test(text));
    expect(notice.text).toContain('777');
    const { code, stderr } = await new Abdm(['status'], env).done;
    expect(code).toBe(1);
    expect(stderr).toContain('777');
  });

  test('leaves no socket behind when a role ends, and clears away those of killed ones', async () => {
    const sockets = `${surroundings().XDG_RUNTIME_DIR}/abdm`;
    const { nodes } = await intermediates(2);
    expect(readdirSync(sockets)).toHaveLength(2);
    expect((await nodes[0]!.stop()).code).toBe(0);
    expect(readdirSync(sockets)).toEqual([`${nodes[1]!.child.pid}.sock`]);
    await nodes[1]!.stop('SIGKILL');
    expect(readdirSync(sockets)).toHaveLength(1);
    expect((await new Abdm(['status']).done).events).toEqual([]);
    expect(readdirSync(sockets)).toEqual([]);
  });
});

describe('abdm cancel', () => {
  test('ends a migration that is under way: when it returns, nothing is left of it', async () => {
    const { source, destination, list } = await slowMigration();
    const { code, events } = await new Abdm(['cancel', 'a', '--reason', 'wrong host']).done;
    expect(code).toBe(0);
    expect(events[0]).toMatchObject({ type: 'cancelled', name: 'a', role: 'eject', outcome: 'aborted' });
    const [left, merged] = await Promise.all([source.done, destination.done]);
    expect([left.code, merged.code]).toEqual([2, 2]);
    expect(left.summary.reason).toEqual({ code: 'CANCELLED', message: 'wrong host' });
    expect(merged.summary.reason.message).toContain('wrong host');
    expect(await keptBytes(list, 256 * 2 ** 20)).toBe(0);
    scene.expectNoOutput();
  });

  test('ends a source that waits for an answer', async () => {
    const silent = createServer().listen(0, '127.0.0.1');
    onTestFinished(() => void silent.close());
    const asked = new Promise<void>((resolve) => {
      silent.on('connection', (socket) => {
        socket.on('error', () => {});
        socket.once('data', () => resolve());
        // Its end is seen, and answered.
        socket.on('end', () => socket.end());
      });
    });
    await new Promise((resolve) => silent.once('listening', resolve));
    const source = scene.startEject(`127.0.0.1:${(silent.address() as { port: number }).port}`, '--direct');
    await asked;
    expect((await new Abdm(['cancel', 'a']).done).code).toBe(0);
    expect(await source.done).toMatchObject({ code: 2, summary: { reason: { code: 'CANCELLED' } } });
  });

  test('ends at once a source that waits for a destination, or a node, that is stopped; nothing stays at the others', async () => {
    const { list } = await intermediates(1);
    // It takes connections, and says and closes nothing.
    const asked = new Set<Socket>();
    const stopped = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('error', () => {}).on('data', () => asked.add(socket));
    }).listen(0, '127.0.0.1');
    onTestFinished(() => {
      stopped.close();
      for (const socket of asked) socket.destroy();
    });
    await new Promise((resolve) => stopped.once('listening', resolve));
    const silent = `127.0.0.1:${(stopped.address() as { port: number }).port}`;
    const park = ['--park', '--replicas', '2', '--vm-key', `${scene.dir}/key`, '--intermediates', `${list},${silent}`];
    for (const how of [['--to', silent, '--intermediates', list], ['--to', silent, '--direct'], park]) {
      asked.clear();
      const source = new Abdm(['eject', `a=file:${scene.image}`, ...how]);
      await vi.waitFor(() => expect(asked.size).toBeGreaterThan(0), { timeout: 30_000 });
      const cancelledAt = performance.now();
      expect((await new Abdm(['cancel', 'a']).done).code).toBe(0);
      expect(await source.done).toMatchObject({ code: 2, summary: { reason: { code: 'CANCELLED' } } });
      // Two seconds, and what two processes need on a machine that is busy; without care it was ten.
      expect(performance.now() - cancelledAt).toBeLessThan(4_500);
      expect(await keptBytes(list, 256 * 2 ** 20)).toBe(0);
      scene.expectNoOutput();
    }
  });

  test('ends a destination that waits for its source', async () => {
    const { destination } = await scene.startMerge();
    const { code, events } = await new Abdm(['cancel', 'a']).done;
    expect([code, events[0].role]).toEqual([0, 'merge']);
    expect(await destination.done).toMatchObject({ code: 2, summary: { reason: { code: 'CANCELLED' } } });
  });

  test('is refused past the exit: the source has left, and the destination goes on', async () => {
    const destination = await slowMerge('2MB');
    await destination.event(({ type, doneBytes }) => type === 'progress' && doneBytes > 1e6);
    const refused = await shown('cancel', 'a');
    expect(refused).toMatchObject({ code: 1, text: expect.stringContaining('past the exit') });
    expect((await new Abdm(['rate', 'a', 'off']).done).code).toBe(0);
    expect((await destination.done).code).toBe(0);
    expect(readFileSync(scene.out).equals(readFileSync(scene.image))).toBe(true);
    expect(await shown('cancel', 'a')).toMatchObject({ code: 1, text: expect.stringMatching(/nobody is called a/) });
  });

  test('is refused by an intermediate, and where two have the name', async () => {
    const { list } = await intermediates(1);
    expect(await shown('cancel', list)).toMatchObject({ code: 1, text: expect.stringContaining('kill') });
    await scene.startMerge();
    const other = new Abdm(['merge', `a=file:${scene.out}2`, '--listen', '127.0.0.1:0']);
    await other.address();
    expect(await shown('cancel', 'a')).toMatchObject({ code: 1, text: expect.stringContaining(`${other.child.pid}`) });
  });
});

describe('abdm rate', () => {
  /** How far the eject of this image was when it last said so. */
  const progress = async (source: Abdm, least: number): Promise<number> =>
    (await source.event(({ type, doneBytes }) => type === 'progress' && doneBytes >= least)).doneBytes;

  test('makes a migration faster and slower than one beside it that began the same', async () => {
    const { list } = await intermediates(1);
    const start = async (name: string) => {
      const merge = new Abdm(['merge', `${name}=file:${scene.dir}/${name}`, '--listen', '127.0.0.1:0']);
      const how = ['--to', await merge.address(), '--intermediates', list, '--rate', '1MB'];
      return new Abdm(['eject', `${name}=file:${scene.image}`, ...how]);
    };
    const [a, b] = [await start('a'), await start('b')];
    const done = async () => {
      const { events } = await new Abdm(['status']).done;
      return (['a', 'b'] as const).map((name) => {
        return events.find(({ role, names }) => role === 'eject' && names[0] === name).status.doneBytes as number;
      });
    };
    await progress(a, 0.5e6);
    await progress(b, 0.5e6);
    const change = async (rate: string) => {
      const { code, events } = await new Abdm(['rate', 'a', rate, '--role', 'eject']).done;
      expect([code, events[0].role]).toEqual([0, 'eject']);
      return await done();
    };
    // While b moves 1.5 MB, a moves more than that, or less.
    const [a0, b0] = await change('4MB');
    await progress(b, b0! + 1.5e6);
    const [a1, b1] = await done();
    expect(a1! - a0!).toBeGreaterThan(1.8 * (b1! - b0!));
    const [a2, b2] = await change('200KB');
    await progress(b, b2! + 1.5e6);
    const [a3, b3] = await done();
    expect(a3! - a2!).toBeLessThan(0.7 * (b3! - b2!));
    expect(a.child.exitCode).toBeNull();
  });

  test('takes a limit off: what would have taken hours is over', async () => {
    const destination = await slowMerge('2K');
    expect((await new Abdm(['rate', 'a', 'off']).done).code).toBe(0);
    expect((await destination.done).code).toBe(0);
  });

  test('must be told which of two, and is refused by what has none', async () => {
    const { list } = await slowMigration();
    expect(await shown('rate', 'a', '1MB')).toMatchObject({ code: 1, text: expect.stringContaining('--role') });
    expect(await shown('rate', list, '1MB')).toMatchObject({ code: 1, text: expect.stringContaining('no rate limit') });
    expect(await shown('rate', 'a', 'fast')).toMatchObject({ code: 1, text: expect.stringContaining('50MB') });
    expect(await shown('rate', 'b', '1MB')).toMatchObject({ code: 1, text: expect.stringContaining('nobody') });
  });
});
