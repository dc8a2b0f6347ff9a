// Connections of a cluster with a key, or with certificates: who is let in, who is not, and that the latter does the former no harm.
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect as netConnect } from 'node:net';
import { join } from 'node:path';
import { createServer as createTlsServer, connect as tlsConnect } from 'node:tls';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import type { AbdmError } from '#abdm/bindings/errors.js';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { OPEN, type Security } from '#abdm/host/wire/security.js';
import { Authority } from '../../certificates.js';
import { child, tempDir } from '../temp.js';
import { cleanUp, gone, listening, message, Probe, pair, pattern, raw, same, until } from './pair.js';

afterEach(cleanUp);
const { HELLO, WELCOME, PUT, GET, STORED, ERROR } = MessageType;

const keyed = (seed: number): Security => ({ clusterKey: pattern(32, seed), tls: null });
const ours = new Authority('ours');
const foreign = new Authority('foreign');
const certified = (by = ours, days?: readonly [number, number], ca = ours): Security => ({
  clusterKey: null,
  tls: { ...by.issue('node', days), ca: ca.cert },
});
const KEYED = keyed(1);
const CERTIFIED = certified();

/** A listener, its refusals, and what an honest client gets of it. */
async function secured(security: Security, more: { handshakeMs?: number; maxConnections?: number } = {}) {
  const server = new Probe();
  const refused: AbdmError[] = [];
  const listener = await listening(server, { security, onRefused: (error) => refused.push(error), ...more });
  return { server, listener, refused };
}

async function isServed(listener: Listener, server: Probe, security: Security): Promise<void> {
  const before = server.messages.length;
  const client = new Probe();
  const channel = await connect(listener.address, client, { security, lingerMs: 300 });
  channel.send(HELLO, 0, encodeJson({ honest: true }));
  await until(() => server.messages.length === before + 1);
  server.channel!.send(WELCOME, 0, encodeJson({}));
  await until(() => client.messages.length === 1);
  channel.end();
  expect(await client.closed).toBe(null);
}

/** How an attempt ends: when connecting, or, with certificates, when the other end has seen ours. */
async function outcome(listener: Listener, security: Security): Promise<AbdmError | null> {
  const client = new Probe();
  try {
    const channel = await connect(listener.address, client, { security, lingerMs: 300 });
    channel.send(HELLO, 0, encodeJson({}));
    return await client.closed;
  } catch (error) {
    return error as AbdmError;
  }
}

describe.each([
  ['a key', KEYED],
  ['certificates', CERTIFIED],
])('with %s, a channel', (_, security) => {
  it('carries big bodies bit-exact both ways at once, small messages between them', async () => {
    const { server, client, here, there } = await pair({ security }, { security });
    const body = pattern(MAX_FRAME_BYTES, 1);
    const memory = new Uint8Array(64 * MAX_FRAME_BYTES);
    let end = 0;
    server.target = (header) => {
      if (header.type !== PUT) return null;
      end += header.bodyBytes;
      return memory.subarray(end - header.bodyBytes, end);
    };
    for (let id = 0; id < 64; id++) {
      here.send(PUT, id, [body.subarray(0, 1000), body.subarray(1000, MAX_FRAME_BYTES - id)]);
      there.send(PUT, id, body.subarray(id));
      here.send(GET, id);
      there.send(STORED, id, new Uint8Array(8).fill(id));
    }
    await until(() => server.messages.length === 128 && client.messages.length === 128);
    for (let id = 0; id < 64; id++) {
      expect(same(server.messages[2 * id]!.body, body.subarray(0, MAX_FRAME_BYTES - id))).toBe(true);
      expect(same(client.messages[2 * id]!.body, body.subarray(id))).toBe(true);
      expect(client.messages[2 * id + 1]!.body[0]).toBe(id);
    }
    here.end();
    expect(await server.closed).toBe(null);
    expect(await client.closed).toBe(null);
  });

  it('stops reading on `wait`, at either end, and loses nothing', async () => {
    const { server, client, here, there } = await pair({ security }, { security });
    for (const [probe, channel, other] of [
      [server, there, here],
      [client, here, there],
    ] as const) {
      let calm = false;
      probe.keepBodies = false;
      probe.target = () => (calm ? null : 'wait');
      const seen: boolean[] = [];
      probe.onMessage = ({ id }, bytes) => {
        seen.push(id === seen.length && same(bytes, pattern(50_000, id)));
        calm = false;
      };
      for (let id = 0; id < 60; id++) other.send(PUT, id, pattern(50_000, id));
      while (seen.length < 60) {
        const before = seen.length;
        calm = true;
        channel.resume();
        await until(() => seen.length > before);
      }
      expect(seen.every((ok) => ok)).toBe(true);
    }
  });

  it('tells the other end why it fails', async () => {
    const { server, client, here } = await pair({ security }, { security });
    server.onMessage = () => {
      throw new Error('enough');
    };
    for (let id = 0; id < 40; id++) here.send(PUT, id, new Uint8Array(MAX_FRAME_BYTES));
    expect(await client.closed).toMatchObject({ code: 'PEER_ABORTED', message: expect.stringContaining('enough') });
  });

  it('shows nobody on the way what is said', async () => {
    const { listener } = await secured(security);
    const { port, said } = await relay(listener);
    const text = 'a secret that is said once';
    const channel = await connect({ host: '127.0.0.1', port }, new Probe(), { security, lingerMs: 300 });
    channel.send(HELLO, 0, encodeJson({ text }));
    await until(() => said().byteLength > 300);
    expect(said().includes(text)).toBe(false);
  });
});

/** Passes bytes on, and remembers those of the client. */
async function relay(listener: Listener) {
  const { createServer } = await import('node:net');
  const heard: Buffer[] = [];
  const relaying = createServer((from) => {
    const to = netConnect(listener.address);
    from.on('data', (bytes) => heard.push(bytes)).on('error', () => {});
    from.pipe(to).on('error', () => {});
    to.pipe(from);
  });
  await once(relaying.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => void relaying.close());
  return { port: (relaying.address() as { port: number }).port, said: () => Buffer.concat(heard) };
}

describe('who is not one of us', () => {
  const cases: [string, Security, Security, RegExp, RegExp][] = [
    ['has another key', KEYED, keyed(2), /compare --key/, /cluster keys differ/],
    ['has no key', KEYED, OPEN, /members of its cluster only: give --key/, /members of its cluster only/],
    ['has certificates where a key is wanted', KEYED, CERTIFIED, /compare --key/, /SIGNATURE_ALGORITHM/],
    ['has no certificate', CERTIFIED, OPEN, /members of its cluster only/, /members of its cluster only/],
    ['has an expired certificate', CERTIFIED, certified(ours, [-9, -1]), /it has expired|has expired/, /has expired/],
    ['has a certificate of tomorrow', CERTIFIED, certified(ours, [1, 9]), /not valid yet/, /not valid yet/],
    ['has a foreign certificate', CERTIFIED, certified(foreign), /another CA signed it/, /another CA signed it/],
  ];

  it.each(cases)('and %s is refused at both ends, counted, and harms nobody', async (_, wanted, has, here, there) => {
    const { server, listener, refused } = await secured(wanted);
    await isServed(listener, server, wanted);
    const error = await outcome(listener, has);
    expect(error).toMatchObject({ code: 'UNAUTHENTICATED', message: expect.stringMatching(here) });
    await until(() => refused.length === 1);
    expect(refused[0]).toMatchObject({ code: 'UNAUTHENTICATED', message: expect.stringMatching(there) });
    expect(listener.counts.refused).toBe(1);
    expect(server.messages.length).toBe(1);
    await isServed(listener, server, wanted);
    await until(() => listener.connections === 0 && listener.strangers === 0);
  });

  it('and listens with an expired or foreign certificate, or with none, is not believed', async () => {
    for (const [wrong, text] of [
      [certified(ours, [-9, -1]), /has expired/],
      [certified(foreign), /another CA/],
      [KEYED, /compare --key/],
    ] as const) {
      const { listener, server } = await secured(wrong);
      expect(await outcome(listener, CERTIFIED)).toMatchObject({
        code: 'UNAUTHENTICATED',
        message: expect.stringMatching(text),
      });
      expect(server.messages).toEqual([]);
    }
  });

  it('and listens without a key is not believed either', async () => {
    const server = new Probe();
    const listener = await listening(server);
    expect(await outcome(listener, KEYED)).toMatchObject({
      code: 'UNAUTHENTICATED',
      message: expect.stringMatching(/does not speak TLS/),
    });
    expect(await server.closed).toMatchObject({ code: 'PROTOCOL' });
  });

  it('and answers in the place of a node with any certificate at all, is found out by who has the key', async () => {
    const self = foreign.issue('node');
    const imposter = createTlsServer({ ...self, minVersion: 'TLSv1.3' }, (socket) => socket.on('error', () => {}));
    imposter.on('tlsClientError', () => {});
    await once(imposter.listen(0, '127.0.0.1'), 'listening');
    onTestFinished(() => void imposter.close());
    // Signed by a CA that this Node believes by itself, as it believes the public ones.
    const { port } = imposter.address() as { port: number };
    const ca = join(tempDir(), 'ca.pem');
    writeFileSync(ca, foreign.cert);
    const script = `
      import { connect } from '#abdm/host/wire/connect.js';
      const security = { clusterKey: new Uint8Array(32), tls: null };
      const said = (error) => console.log(error?.code ?? 'believed');
      connect('127.0.0.1:${port}', { onMessage() {} }, { security }).then(() => said(), said);`;
    const args = ['--input-type=module', '-e', script];
    const { line } = await child(process.execPath, args, { NODE_EXTRA_CA_CERTS: ca });
    expect(line).toBe('UNAUTHENTICATED');
  });

  it('and speaks older TLS, HTTP or noise is refused and counted', async () => {
    const { server, listener, refused } = await secured(KEYED);
    const old = tlsConnect({
      ...listener.address,
      minVersion: 'TLSv1.2',
      maxVersion: 'TLSv1.2',
      ciphers: 'PSK+AESGCM',
      pskCallback: () => ({ psk: Buffer.alloc(32), identity: 'abdm' }),
      checkServerIdentity: () => undefined,
    });
    await expect(once(old, 'secureConnect')).rejects.toThrow(/protocol version/);
    for (const words of ['GET / HTTP/1.1\r\n\r\n', '\0\0\0', 'ABDX', `ABDT${'x'.repeat(16)}`]) {
      const socket = await raw(listener);
      socket.write(words);
      await gone(socket);
    }
    expect(listener.counts.refused).toBe(5);
    expect(refused.map(({ code }) => code)).toEqual(Array(5).fill('UNAUTHENTICATED'));
    await isServed(listener, server, KEYED);
  });

  it('and says what somebody else said, word for word, is refused', async () => {
    const { server, listener } = await secured(KEYED);
    const { port, said } = await relay(listener);
    const channel = await connect({ host: '127.0.0.1', port }, new Probe(), { security: KEYED, lingerMs: 300 });
    channel.send(HELLO, 0, encodeJson({}));
    await until(() => server.messages.length === 1);
    const socket = await raw(listener);
    socket.write(said());
    await gone(socket);
    expect(server.messages.length).toBe(1);
    expect(listener.counts.refused).toBe(1);
  });
});

describe('a listener with a key', () => {
  it('tells a client without one in plain words', async () => {
    const { listener } = await secured(KEYED);
    const socket = await raw(listener);
    const answer: Buffer[] = [];
    socket.on('data', (bytes) => answer.push(bytes));
    socket.write(message(HELLO, 0, encodeJson({ protocol: 3 })));
    await once(socket, 'end');
    const reply = Buffer.concat(answer);
    expect(reply[0]).toBe(ERROR);
    expect(JSON.parse(reply.subarray(16).toString())).toMatchObject({ code: 'UNAUTHENTICATED' });
  });

  it('gives up on who does not finish, and serves others meanwhile', async () => {
    const { server, listener, refused } = await secured(KEYED, { handshakeMs: 300 });
    const silent = await raw(listener);
    const halfTls = await raw(listener);
    const halfTicket = await raw(listener);
    halfTls.write(Uint8Array.of(0x16, 3, 1));
    halfTicket.write('ABDT1234');
    await until(() => listener.strangers === 3);
    await isServed(listener, server, KEYED);
    await Promise.all([silent, halfTls, halfTicket].map((socket) => gone(socket)));
    expect(refused.map(({ message: text }) => /within 300 ms/.test(text))).toEqual([true, true, true]);
    expect(listener.strangers).toBe(0);
  });

  it('is not filled by a flood of connections that say nothing', async () => {
    const { server, listener } = await secured(KEYED);
    const flood = await Promise.all(Array.from({ length: 300 }, () => raw(listener)));
    for (const socket of flood) socket.resume().write(Uint8Array.of(0x16));
    await until(() => listener.counts.refused >= 172);
    expect(listener.strangers).toBeLessThanOrEqual(128);
    await isServed(listener, server, KEYED);
    expect(listener.connections).toBeLessThanOrEqual(1);
  });

  it('forgets who leaves before it has said who it is', async () => {
    const { listener } = await secured(KEYED);
    for (const words of ['', 'ABD', '\x16\x03\x01']) {
      const socket = await raw(listener);
      socket.end(words);
      await gone(socket);
    }
    await until(() => listener.strangers === 0);
  });

  it('closes with strangers at the door', async () => {
    const { listener } = await secured(KEYED);
    const socket = (await raw(listener)).resume();
    await until(() => listener.strangers === 1);
    await Promise.all([listener.close(), gone(socket)]);
  });

  it('tells one of us beyond the limit so', async () => {
    const { listener } = await secured(KEYED, { maxConnections: 1 });
    await connect(listener.address, new Probe(), { security: KEYED, lingerMs: 300 });
    await until(() => listener.connections === 1);
    expect(await outcome(listener, KEYED)).toMatchObject({
      code: 'PEER_ABORTED',
      message: expect.stringContaining('NO_ROOM'),
    });
  });
});

it('no session is resumed: a certificate is looked at each time', async () => {
  const { listener } = await secured(CERTIFIED);
  const { tls } = CERTIFIED;
  const reused: boolean[] = [];
  let session: Buffer | undefined;
  for (let i = 0; i < 2; i++) {
    const socket = tlsConnect({ ...listener.address, ...tls!, session, checkServerIdentity: () => undefined });
    const offered = new Promise<Buffer>((resolve) => socket.once('session', resolve));
    await once(socket, 'secureConnect');
    reused.push(socket.isSessionReused());
    socket.write(message(HELLO, 0, encodeJson({})));
    if (i === 0) session = await offered;
    socket.destroy();
  }
  expect(session?.byteLength).toBeGreaterThan(0);
  expect(reused).toEqual([false, false]);
});

it('without a key nobody is listened to or spoken to but on this machine', async () => {
  for (const address of ['0.0.0.0:0', '[::]:0', '10.0.0.1:7000', 'node7:7000']) {
    await expect(listen(address, () => new Probe())).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/--key.*abdm keygen|abdm keygen.*--key/),
    });
  }
  for (const address of ['10.0.0.1:7000', '[fe80::1]:7000', 'node7:7000', '0.0.0.0:7000']) {
    await expect(connect(address, new Probe())).rejects.toMatchObject({
      code: 'USAGE',
      message: expect.stringMatching(/only this machine.*--key/),
    });
  }
});
