// A guest as a process: what it finds wrong, who may do what to it, and what it refuses to hear.

import { readdirSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { GuestClient } from '#abdm/host/guest/client.js';
import { Abdm, cleanUp, directory } from '../cli/processes.js';
import { GuestProcess, MIB } from './guests.js';

const PAGE = 4096;

afterEach(cleanUp);

const refused = (text: RegExp) => expect.objectContaining({ code: 'IMAGE', message: expect.stringMatching(text) });

describe('truth', () => {
  test('a damaged page is found by the next operation that touches it: the guest ends with code 4', async () => {
    const guest = await GuestProcess.running();
    await guest.works();
    await guest.ask('stop');
    const memory = await guest.memory();
    for (let pfn = 0; pfn < 16 * 256; pfn++) await guestPlants(guest, memory, pfn);
    await guest.ask('resume');
    const { code, events, summary } = await guest.abdm.done;
    expect(code).toBe(4);
    expect(summary).toMatchObject({ role: 'guest', wrongPages: 1 });
    const wrong = events.filter(({ type }) => type === 'wrong');
    expect(wrong).toMatchObject([{ operation: summary.operations, what: expect.stringMatching(/^byte 2000 is/) }]);
    expect(events.at(-2)).toMatchObject({ type: 'state', state: 'stopped' });
  });

  test('verify finds a damaged page, an old version and a page in the place of another one, by name', async () => {
    const guest = await GuestProcess.running();
    await guest.works(2000);
    await guest.ask('stop');
    const before = await guest.memory();
    expect(await guest.ask('verify')).toMatchObject({ pages: 4096, absent: 0, wrong: 0, first: [] });
    await guest.ask('resume');
    await guest.works(8000);
    await guest.ask('stop');
    const after = await guest.memory();
    const changed = Array.from({ length: 4096 }, (_, pfn) => pfn).filter(
      (pfn) => !pageOf(before, pfn).equals(pageOf(after, pfn)),
    );
    const stale = changed.find(
      (pfn) => before.readUInt32LE(pfn * PAGE) === pfn && before.readUInt32LE(pfn * PAGE + 4) < 100,
    )!;
    const [damaged, moved] = [changed.at(-1)!, changed.at(-2)!];
    await guest.plant(stale * PAGE, pageOf(before, stale));
    await guest.plant(damaged * PAGE + 4095, Buffer.of(after[damaged * PAGE + 4095]! ^ 0x10));
    await guest.plant(moved * PAGE, pageOf(after, damaged));
    const verdict = await guest.ask('verify');
    const version = (bytes: Buffer, pfn: number) => bytes.readUInt32LE(pfn * PAGE + 4);
    expect(verdict).toMatchObject({ pages: 4096, absent: 0, wrong: 3 });
    const first = [...(verdict.first as { pfn: number; what: string }[])].sort((a, b) => a.pfn - b.pfn);
    expect(first).toEqual(
      [
        { pfn: stale, what: `version ${version(before, stale)}; it should be ${version(after, stale)}` },
        { pfn: damaged, what: expect.stringMatching(/^byte 4095 is/) },
        { pfn: moved, what: expect.stringMatching(`^version ${version(after, damaged)} of page ${damaged}; `) },
      ].sort((a, b) => a.pfn - b.pfn),
    );
    const { code, summary } = await guest.abdm.stop();
    expect({ code, wrongPages: summary.wrongPages }).toEqual({ code: 4, wrongPages: 3 });
  });

  test.each([['zero'], ['file'], ['random']])('%s content holds while it is written to', async (content) => {
    const path = join(directory(), 'content');
    if (content === 'file') writeFileSync(path, Buffer.alloc(17 * MIB, 'some words of a file; '));
    const guest = await GuestProcess.running('--content', content === 'file' ? path : content, '--common', '0.3');
    await guest.works(5000);
    expect(await guest.ask('verify')).toMatchObject({ wrong: 0 });
    expect((await guest.abdm.stop()).code).toBe(0);
  });
});

const pageOf = (memory: Buffer, pfn: number) => memory.subarray(pfn * PAGE, (pfn + 1) * PAGE);
const guestPlants = (guest: GuestProcess, memory: Buffer, pfn: number) =>
  guest.plant(pfn * PAGE + 2000, Buffer.of(memory[pfn * PAGE + 2000]! ^ 1));

describe('operations', () => {
  test('are as many as asked for, and told every quarter of a second', async () => {
    const guest = await GuestProcess.running('--ops', '2000');
    await guest.works(2500);
    const { events, summary } = await guest.abdm.stop();
    const told = events.filter(({ type }) => type === 'operations');
    const sum = (name: string) => told.reduce((all, event) => all + event[name], 0);
    expect(sum('operations')).toBe(summary.operations);
    expect(told.length).toBeGreaterThan(3);
    // Never more than asked for; less where the host is busy.
    const rate = (1000 * sum('operations')) / sum('ms');
    expect(rate).toBeLessThan(2050);
    expect(rate).toBeGreaterThan(500);
    expect(summary.ran).toHaveLength(1);
    expect(summary.ran[0]).toMatchObject({ fromOperation: 0, toOperation: summary.operations });
    expect(summary.ran[0].endedAtMs).toBeGreaterThan(Date.now() - 60_000);
  });

  test('of an idle guest: none', async () => {
    const guest = await GuestProcess.running('--ops', '0');
    expect(await guest.ask('verify')).toMatchObject({ pages: 4096, wrong: 0 });
    expect((await guest.abdm.stop()).summary.operations).toBe(0);
  });

  test('stand still while it is stopped, and go on from there', async () => {
    const guest = await GuestProcess.running();
    await guest.works();
    await guest.ask('stop');
    const { operation, state } = await guest.ask('status');
    expect(state).toBe('stopped');
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect((await guest.ask('status')).operation).toBe(operation);
    await guest.ask('resume');
    await guest.works();
    const { ran } = (await guest.abdm.stop()).summary;
    expect(ran).toHaveLength(2);
    expect([ran[0].toOperation, ran[1].fromOperation]).toEqual([operation, operation]);
  });
});

describe('nothing stays behind', () => {
  test.each(['SIGTERM', 'SIGKILL'] as const)(
    'after %s: neither memory nor, but for a kill, its socket',
    async (signal) => {
      const backing = directory();
      const guest = await GuestProcess.running('--backing', backing);
      expect(readdirSync(backing)).toEqual([]);
      const { code } = await guest.abdm.stop(signal);
      expect(code).toBe(signal === 'SIGTERM' ? 0 : null);
      expect(readdirSync(backing)).toEqual([]);
      if (signal === 'SIGTERM') return;
      // A socket that nobody answers at is taken over.
      const next = new Abdm(['guest', '--socket', guest.socket, '--incoming']);
      await next.event(({ type }) => type === 'listening');
    },
  );

  test('quit', async () => {
    const guest = await GuestProcess.waiting();
    await guest.ask('quit');
    expect(await guest.abdm.done).toMatchObject({ code: 0, summary: { operations: 0, ran: [], wrongPages: 0 } });
  });
});

describe('who may', () => {
  test('a guest that waits for a migration runs by nobody else', async () => {
    const guest = await GuestProcess.waiting();
    for (const ask of ['resume', 'stop', 'verify'] as const) {
      await expect(guest.ask(ask)).rejects.toEqual(refused(/it is waiting/));
    }
    await expect(guest.source()).rejects.toEqual(refused(/it is waiting/));
    const sink = await guest.sink();
    await expect(sink.run()).rejects.toEqual(refused(/cannot be run: it is waiting/));
    await sink.leave?.();
  });

  test('one at a time migrates it, and meanwhile nobody else stops it or lets it go on', async () => {
    const guest = await GuestProcess.running();
    const source = await guest.source();
    await expect(guest.source()).rejects.toEqual(refused(/somebody else is migrating/));
    await expect(guest.ask('stop')).rejects.toEqual(refused(/is being migrated/));
    await source.stop();
    await expect(guest.ask('resume')).rejects.toEqual(refused(/is being migrated/));
    await source.close();
    await guest.ask('resume');
    await guest.works();
    await expect(guest.sink()).rejects.toEqual(refused(/waits for no migration/));
  });

  test('a guest that has left never runs again, and its memory is given back', async () => {
    const guest = await GuestProcess.running();
    const source = await guest.source();
    await expect(source.release()).rejects.toEqual(refused(/cannot be released: it is running/));
    await source.stop();
    await source.release();
    await expect(source.resume()).rejects.toEqual(refused(/cannot be resumed: it is left/));
    await expect(source.stop()).rejects.toEqual(refused(/it is left/));
    await source.close();
    await expect(guest.ask('resume')).rejects.toEqual(refused(/it is left/));
    expect(await guest.ask('status')).toMatchObject({ state: 'left', memoryBytes: 0, memory: null });
    expect((await guest.abdm.stop()).code).toBe(0);
  });

  test('only who migrates it may ask what migrators ask', async () => {
    const guest = await GuestProcess.running();
    const client = await GuestClient.open(guest.socket);
    for (const ask of ['dirty', 'release', 'run', 'commit', 'reset'] as const) {
      await expect(client.request({ ask })).rejects.toEqual(refused(/only who has said/));
    }
    client.close();
    const source = await guest.source();
    await source.close();
  });
});

describe('what it refuses to hear', () => {
  /** What a guest says to these bytes before it ends the connection. */
  function said(path: string, ...bytes: (string | Uint8Array)[]): Promise<string> {
    return new Promise((resolve) => {
      const socket = connect(path);
      let text = '';
      socket.setEncoding('utf8').on('data', (part) => {
        text += part;
      });
      socket.on('error', () => {});
      socket.on('close', () => resolve(text));
      for (const some of bytes) socket.write(some);
    });
  }

  test.each<[string, string | Uint8Array, RegExp]>([
    ['no JSON', 'hello\n', /not JSON/],
    ['no object', '[]\n', /not an object/],
    ['an unknown question', '{"ask":"constructor"}\n', /`ask` is none of/],
    ['no question', '{}\n', /`ask` is none of/],
    ['a line without an end', Buffer.alloc(20_000, 'x'), /longer than/],
    ['bytes that are no text', Buffer.of(0xff, 0xfe, 10), /not JSON/],
    ['a state of no length', '{"ask":"load"}\n', /`body`/],
    ['a state of 1 TiB', '{"ask":"load","body":1099511627776}\n', /`body`/],
    ['a page that cannot be', '{"came":[4294967296]}\n', /`pfn`/],
    ['pages without end', `{"came":[${'1,'.repeat(300)}1]}\n`, /301 items/],
    ['a memory of half a byte', '{"ask":"sink","bytes":0.5,"keep":false}\n', /`bytes`/],
    ['too much at a time', '{"ask":"status"}\n'.repeat(1000), /too many requests/],
  ])('%s', async (_, bytes, why) => {
    const guest = await GuestProcess.waiting();
    const text = await said(guest.socket, bytes);
    const last = JSON.parse(text.trim().split('\n').at(-1)!);
    expect(last).toMatchObject({ ok: false, code: 'PROTOCOL', message: expect.stringMatching(why) });
    expect(await guest.ask('status')).toMatchObject({ state: 'waiting' });
  });

  test('a memory that it cannot have, and a state that does not fit or is none', async () => {
    const guest = await GuestProcess.waiting();
    for (const bytes of [0, 4095, 2 ** 36, 2 ** 50]) {
      await expect(guest.sink(bytes)).rejects.toEqual(refused(/cannot have/));
    }
    const sink = await guest.sink(32 * MIB);
    const other = await GuestProcess.running();
    const source = await other.source();
    await expect(sink.load(await source.stop())).rejects.toEqual(refused(/for 16777216/));
    await expect(sink.load(Buffer.from('a state'))).rejects.toEqual(refused(/not that of a guest/));
    await expect(sink.run()).rejects.toEqual(refused(/it is waiting/));
    await sink.leave?.();
    await source.close();
  });
});

describe('usage', () => {
  test.each([
    [['--memory', '16M', '--incoming'], /say what to do/],
    [[], /say what to do/],
    [['--memory', '5000'], /not whole pages/],
    [['--memory', '1T'], /memoryBytes/],
    [['--memory', '1M', '--working-set', '2M'], /workingSetBytes/],
    [['--memory', '1M', '--writes', '2'], /from 0 to 1/],
    [['--memory', '1M', '--pattern', 'random'], /Allowed choices/],
  ])('%j', async (args, why) => {
    const { code, stderr } = await new GuestProcess(...args).abdm.done;
    expect(stderr).toMatch(why);
    expect(code).toBe(1);
  });

  test.each([
    [['--memory', '1M', '--content', '/nowhere'], /nowhere cannot be the content/],
    [['--memory', '1M', '--backing', '/nowhere'], /cannot be made in \/nowhere/],
    [['--ask', 'status'], /no guest can be reached/],
  ])('%j cannot be done', async (args, why) => {
    const { code, stderr } = await new GuestProcess(...args).abdm.done;
    expect(stderr).toMatch(why);
    expect(code).toBe(2);
  });

  test('a socket where a guest is', async () => {
    const guest = await GuestProcess.waiting();
    const { code, stderr } = await new Abdm(['guest', '--socket', guest.socket, '--incoming']).done;
    expect(stderr).toMatch(/a guest is at/);
    expect(code).toBe(2);
    expect(await guest.ask('status')).toMatchObject({ state: 'waiting' });
  });

  test('asked on the command line', async () => {
    const guest = await GuestProcess.running();
    const ask = (what: string) => new Abdm(['guest', '--socket', guest.socket, '--ask', what]).done;
    expect((await ask('status')).events).toMatchObject([{ type: 'status', state: 'running', memoryBytes: 16 * MIB }]);
    expect(await ask('stop')).toMatchObject({ code: 0, events: [{ type: 'stop' }] });
    expect(await ask('verify')).toMatchObject({ code: 0, events: [{ type: 'verify', pages: 4096, wrong: 0 }] });
    await guest.plant(0, Buffer.from('a wrong byte, or several'));
    expect(await ask('verify')).toMatchObject({ code: 4, events: [{ type: 'verify', wrong: 1 }] });
    expect((await ask('quit')).code).toBe(0);
    expect((await guest.abdm.done).code).toBe(4);
  });
});
