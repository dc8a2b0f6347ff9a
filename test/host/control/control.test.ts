// A role's control socket, from both ends: who may reach it, what it answers, and what becomes of those that were left behind.
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { cancelRole, runningRoles, setRate } from '#abdm/host/control/client.js';
import { type ControlledRole, ControlServer } from '#abdm/host/control/server.js';
import { nodeChild, tempDir } from '../temp.js';

let directory: string;
const before = process.env.XDG_RUNTIME_DIR;
beforeEach(() => {
  process.env.XDG_RUNTIME_DIR = tempDir();
  directory = join(process.env.XDG_RUNTIME_DIR, 'abdm');
});
afterEach(() => {
  if (before === undefined) delete process.env.XDG_RUNTIME_DIR;
  else process.env.XDG_RUNTIME_DIR = before;
});

async function open(role: Partial<ControlledRole> = {}): Promise<ControlServer> {
  const control = await ControlServer.open({
    role: 'eject',
    names: ['vm1', 'vm2'],
    status: () => ({ at: 7 }),
    ...role,
  });
  onTestFinished(() => control.close());
  return control;
}

const pid = process.pid;
const socketOf = (number: number) => join(directory, `${number}.sock`);

/** What is answered to these bytes; empty: nothing, the connection ended. */
function say(bytes: string | Uint8Array): Promise<string> {
  return new Promise((resolve) => {
    let text = '';
    const socket = connect(socketOf(pid), () => socket.write(bytes));
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(text));
  });
}

test('says who it is and how far it has come, to its owner only', async () => {
  await open();
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  const role = { role: 'eject', pid, names: ['vm1', 'vm2'], status: { at: 7 } };
  expect(await runningRoles()).toEqual({ roles: [role], silent: [] });
});

test('takes a rate, and says so where it has none', async () => {
  const rates: (number | null)[] = [];
  const control = await open({ setRate: (rate) => rates.push(rate) });
  await setRate(pid, 5_000_000);
  await setRate(pid, null);
  expect(rates).toEqual([5_000_000, null]);
  control.close();
  await open({ role: 'intermediate', names: ['127.0.0.1:7'] });
  await expect(setRate(pid, 5)).rejects.toMatchObject({
    code: 'USAGE',
    message: expect.stringContaining('127.0.0.1:7'),
  });
});

test('tells everybody who cancels how it ended, when it has', async () => {
  const reasons: string[] = [];
  const control = await open({ cancel: (reason) => reasons.push(reason) });
  const ended = Promise.all([cancelRole(pid, 'one'), cancelRole(pid, 'two')]);
  while (reasons.length < 2) await new Promise((resolve) => setImmediate(resolve));
  const vms = [
    { name: 'vm1', outcome: 'aborted' },
    { name: 'vm2', outcome: 'completed' },
  ];
  const ending = { outcome: 'aborted', reason: { code: 'CANCELLED', message: 'one' }, vms };
  control.close(ending);
  expect(await ended).toEqual([ending, ending]);
  expect(reasons.sort()).toEqual(['one', 'two']);
  expect(readdirSync(directory)).toEqual([]);
});

test('says when it cannot be cancelled, and when it ended without a word', async () => {
  const control = await open();
  await expect(cancelRole(pid, '')).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('kill') });
  control.close();
  let asked = () => {};
  const wasAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const second = await open({ cancel: asked });
  const refused = expect(cancelRole(pid, '')).rejects.toMatchObject({ code: 'PEER_GONE' });
  await wasAsked;
  second.close();
  await refused;
});

test('answers rubbish with what is wrong with it, and goes on', async () => {
  await open({ setRate: () => {} });
  for (const rubbish of [
    'GET / HTTP/1.1\n',
    '{}\n',
    '[]\n',
    '\n',
    '{"ask":"fly"}\n',
    '{"ask":"rate"}\n',
    '{"ask":"rate","bytesPerS":0}\n',
    '{"ask":"rate","bytesPerS":"5"}\n',
    '{"ask":"cancel"}\n',
    `{"ask":"cancel","reason":"${'x'.repeat(501)}"}\n`,
    new Uint8Array([0xff, 0xfe, 10]),
    'x'.repeat(1_000_000),
  ]) {
    const text = await say(rubbish);
    const what = String(rubbish).slice(0, 40);
    expect([what, JSON.parse(text || '{"ok":"none"}')]).toEqual([
      what,
      expect.objectContaining({ ok: false, code: 'PROTOCOL' }),
    ]);
  }
  // Several requests on one connection: the first is answered.
  expect(await say('{"ask":"status"}\n{"ask":"status"}\n')).toMatch(/^\{"ok":true,[^\n]*\n$/);
  expect((await runningRoles()).roles).toHaveLength(1);
});

test('sockets of dead processes are removed; others, and other files, are not', async () => {
  await open();
  // A child opens a socket and is killed.
  const child = await nodeChild(
    `require('net').createServer().listen(require('path').join(${JSON.stringify(directory)}, process.pid + '.sock'), () => console.log('up'))`,
  );
  child.process.kill('SIGKILL');
  await child.ended;
  // A living process has this number, and nobody listens: it may be about to.
  const living = createServer().listen(socketOf(process.ppid));
  onTestFinished(() => void living.close());
  living.on('connection', (socket) => socket.destroy());
  writeFileSync(join(directory, 'notes'), '');
  expect(existsSync(socketOf(child.pid))).toBe(true);
  const { roles, silent } = await runningRoles();
  expect(roles.map((role) => role.pid)).toEqual([pid]);
  expect(silent).toEqual([process.ppid]);
  expect(readdirSync(directory).sort()).toEqual([`${pid}.sock`, `${process.ppid}.sock`, 'notes'].sort());
});

test('a process that is given the number of a dead one takes the place of its socket', async () => {
  mkdirSync(directory, { mode: 0o700 });
  writeFileSync(socketOf(pid), '');
  await open();
  expect((await runningRoles()).roles).toHaveLength(1);
});

const unsafe: [string, () => void, RegExp][] = [
  ['others may enter', () => chmodSync(directory, 0o755), /755/],
  ['others may write to', () => chmodSync(directory, 0o720), /720/],
];
if (process.getuid?.() === 0) unsafe.push(['somebody else made', () => chownSync(directory, 65534, 65534), /65534/]);
test.each(unsafe)('a directory that %s is not used', async (_, spoil, text) => {
  mkdirSync(directory, { mode: 0o700 });
  spoil();
  await expect(open()).rejects.toMatchObject({ code: 'USAGE', message: expect.stringMatching(text) });
  await expect(runningRoles()).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining(directory) });
  expect(readdirSync(directory)).toEqual([]);
});

test('nor is a link to one, a file, or a name that is too long', async () => {
  const elsewhere = tempDir();
  symlinkSync(elsewhere, directory);
  await expect(open()).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('no directory') });
  process.env.XDG_RUNTIME_DIR = elsewhere;
  writeFileSync(join(elsewhere, 'abdm'), '');
  await expect(open()).rejects.toMatchObject({ code: 'USAGE' });
  const long = join(elsewhere, 'x'.repeat(100));
  mkdirSync(long);
  process.env.XDG_RUNTIME_DIR = long;
  await expect(open()).rejects.toMatchObject({ code: 'USAGE', message: expect.stringContaining('too long') });
});
