import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  blockedReasons,
  capabilities,
  migrationState,
  progress,
  runState,
  setCapabilities,
  setParameters,
  version,
} from '#abdm/host/qemu/monitor.js';
import { QmpClient } from '#abdm/host/qemu/qmp.js';
import { tempDir } from '../temp.js';
import { needsQemu, startQemu } from './qemu.js';

const GREETING = '{"QMP":{"version":{"qemu":{"micro":1,"minor":2,"major":7},"package":""},"capabilities":[]}}\r\n';

/** Someone who looks like a QEMU: `answer` gets each line, and says what to send. */
async function monitor(
  answer: (line: { execute: string; id: number }) => string,
  greeting = GREETING,
): Promise<string> {
  const path = join(tempDir(), 'qmp');
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.write(greeting);
    let text = '';
    socket.on('data', (data) => {
      text += data;
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) socket.write(answer(JSON.parse(line)));
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return path;
}

const good = ({ id }: { id: number }, value: unknown = {}) => `${JSON.stringify({ return: value, id })}\r\n`;

async function open(path: string, answerMs?: number): Promise<QmpClient> {
  const qmp = await QmpClient.open(path, answerMs === undefined ? {} : { answerMs });
  onTestFinished(() => qmp.close());
  return qmp;
}

describe('a monitor', () => {
  it('answers by number, and tells events between', async () => {
    const late: string[] = [];
    const path = await monitor((line) => {
      if (line.execute === 'first') {
        late.push(good(line, 1));
        return '{"event":"STOP","timestamp":{"seconds":1,"microseconds":2}}\r\n';
      }
      return line.execute === 'second' ? good(line, 2) + late.pop() : good(line);
    });
    const qmp = await open(path);
    const events: unknown[] = [];
    qmp.onEvent = (...event) => void events.push(event);
    expect(await Promise.all([qmp.execute('first'), qmp.execute('second')])).toEqual([1, 2]);
    expect(events).toEqual([['STOP', {}]]);
  });

  it('refuses with its own words', async () => {
    const path = await monitor((line) =>
      line.execute === 'cont'
        ? `{"id":${line.id},"error":{"class":"GenericError","desc":"no \\u001b[2J way"}}\r\n`
        : good(line),
    );
    const qmp = await open(path);
    const refused = expect(qmp.execute('cont')).rejects;
    await refused.toMatchObject({ code: 'IMAGE', message: `QEMU at ${path} refuses cont: no  [2J way` });
    expect(await qmp.execute('stop')).toEqual({});
  });

  it.each([
    ['a line of its monitor: the body is not JSON', () => 'nonsense\r\n'],
    ['nobody has asked', () => '{"return":{},"id":77}\r\n'],
    ['`id`', () => '{"return":{}}\r\n'],
    ['`error`', () => '{}\r\n'],
    ['longer than 1048576 bytes', () => 'x'.repeat(2 ** 20 + 1)],
  ])('that says something else is not asked again: %s', async (what, answer) => {
    const path = await monitor((line) => (line.execute === 'stop' ? answer() : good(line)));
    const qmp = await open(path);
    const gone = new Promise((resolve) => {
      qmp.onGone = resolve;
    });
    const refused = { code: 'IMAGE', message: expect.stringContaining(what) };
    await expect(qmp.execute('stop')).rejects.toMatchObject(refused);
    expect(await gone).toMatchObject(refused);
    await expect(qmp.execute('cont')).rejects.toMatchObject(refused);
  });

  it('that is none, or says nothing, is not waited for', async () => {
    const missing = join(tempDir(), 'none');
    await expect(QmpClient.open(missing)).rejects.toMatchObject({
      code: 'IMAGE',
      message: expect.stringContaining('-qmp unix:'),
    });
    const mute = await monitor(() => '', '');
    await expect(QmpClient.open(mute, { answerMs: 50 })).rejects.toThrow('no answer to connecting for 0.05 s');
    const other = await monitor(() => '', '{"hello":1}\r\n');
    await expect(QmpClient.open(other)).rejects.toThrow('`QMP`');
    const silent = await monitor((line) => (line.execute === 'stop' ? '' : good(line)));
    const qmp = await open(silent, 2000);
    await expect(qmp.execute('stop')).rejects.toThrow('no answer to stop');
  });

  it('has its answers checked', async () => {
    const path = await monitor((line) => good(line, line.execute.startsWith('query') ? { status: 5 } : {}));
    const qmp = await open(path);
    for (const query of [version, runState, migrationState, capabilities]) {
      await expect(query(qmp)).rejects.toMatchObject({ code: 'IMAGE' });
    }
    const wrong = { 'blocked-reasons': 5, ram: { remaining: -1, 'dirty-sync-count': 0 } };
    const other = await open(await monitor((line) => good(line, line.execute.startsWith('query') ? wrong : {})));
    for (const query of [blockedReasons, progress]) {
      await expect(query(other)).rejects.toMatchObject({ code: 'IMAGE' });
    }
  });

  it('of a real QEMU says how it is', async ({ skip }) => {
    needsQemu(skip);
    const qemu = await startQemu(['-S']);
    expect(await version(qemu.qmp)).toMatch(/^\d+\.\d+\.\d+$/);
    expect(await runState(qemu.qmp)).toEqual({ status: 'prelaunch', running: false });
    expect(await migrationState(qemu.qmp)).toEqual({ status: 'none', reason: null });
    expect(await blockedReasons(qemu.qmp)).toEqual([]);
    expect(await progress(qemu.qmp)).toEqual({ dirtySyncs: 0, remainingBytes: 0 });
    expect((await capabilities(qemu.qmp)).get('postcopy-ram')).toBe(false);
    await setCapabilities(qemu.qmp, { 'postcopy-ram': true, 'return-path': true });
    await setParameters(qemu.qmp, { 'max-bandwidth': 2 ** 30 });
    const events: string[] = [];
    qemu.qmp.onEvent = (event) => void events.push(event);
    await qemu.qmp.execute('cont');
    expect((await runState(qemu.qmp)).running).toBe(true);
    expect(events).toContain('RESUME');
    const refused = { code: 'IMAGE', message: expect.stringMatching(/refuses no-such-command: .+/) };
    await expect(qemu.qmp.execute('no-such-command')).rejects.toMatchObject(refused);
    const gone = new Promise((resolve) => {
      qemu.qmp.onGone = resolve;
    });
    await qemu.qmp.execute('quit');
    expect(await gone).toMatchObject({ code: 'IMAGE' });
  });
});
