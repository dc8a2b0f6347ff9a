// Plain connections by ticket: a whole conversation over one, and a man in the middle who may disturb it, and no more.
import { once } from 'node:events';
import { createServer, connect as netConnect, type Socket } from 'node:net';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import { connect } from '#abdm/host/wire/connect.js';
import { encodeJson } from '#abdm/host/wire/json.js';
import { type Listener, listen } from '#abdm/host/wire/listen.js';
import { encodeU64s, MAX_FRAME_BYTES, MessageType } from '#abdm/host/wire/messages.js';
import { Prover, proofsOf } from '#abdm/host/wire/proof.js';
import type { Security } from '#abdm/host/wire/security.js';
import {
  needTicket,
  preambleOf,
  readPreamble,
  type Ticket,
  Tickets,
  type UsedTicket,
} from '#abdm/host/wire/tickets.js';
import { cleanUp, gone, message, Probe, pattern, raw, same, until } from './pair.js';

afterEach(cleanUp);
const { HELLO, WELCOME, PUT, STORED, GET, FRAME, MISSING } = MessageType;
const SECURITY: Security = { clusterKey: pattern(32, 1), tls: null };

/** A node that keeps what is put, as an intermediate does. */
class Keeper extends Probe {
  readonly kept = new Map<number, Uint8Array>();
  ticket: UsedTicket | null = null;

  override onMessage(...[header, body]: Parameters<Probe['onMessage']>): void {
    super.onMessage(header, body);
    const channel = this.channel!;
    if (header.type === HELLO) channel.send(WELCOME, 0, encodeJson({ keeps: true }));
    if (header.type === PUT) {
      this.kept.set(header.id, body.slice());
      channel.send(STORED, header.id, encodeU64s(1000));
    }
    if (header.type !== GET) return;
    const block = this.kept.get(header.id);
    channel.send(block ? FRAME : MISSING, header.id, block);
  }
}

async function keeping(neverDirect = false): Promise<{ keepers: Keeper[]; listener: Listener }> {
  const keepers: Keeper[] = [];
  const listener = await listen(
    '127.0.0.1:0',
    (channel, ticket) => {
      const keeper = Object.assign(new Keeper(), { channel, ticket });
      keepers.push(keeper);
      return keeper;
    },
    { security: SECURITY, lingerMs: 200, neverDirect },
  );
  onTestFinished(() => listener.close());
  return { keepers, listener };
}

/** A ticket as a client gets it: said over TLS. */
async function ticketFrom(listener: Listener, context: unknown = 'context'): Promise<Ticket> {
  const ticket = listener.tickets.issue(context);
  return needTicket(JSON.parse(JSON.stringify({ ticket })), 'ticket', 'WELCOME')!;
}

type Change = (bytes: Buffer, link: { back: Socket; on: Socket }) => Buffer | null;

/** Somebody on the way: what the client says goes through `there`, what the node says through `back`. */
async function between(listener: Listener, there: Change | null, back: Change | null = null) {
  const sockets: Socket[] = [];
  const server = createServer((from) => {
    const to = netConnect(listener.address);
    sockets.push(from, to);
    const pass = (source: Socket, target: Socket, change: Change | null) => {
      source.on('error', () => target.destroy());
      source.on('close', () => target.end());
      source.on('data', (bytes) => {
        const changed = change ? change(bytes, { back: source, on: target }) : bytes;
        if (changed) target.write(changed);
      });
    };
    pass(from, to, there);
    pass(to, from, back);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return { host: '127.0.0.1', port: (server.address() as { port: number }).port };
}

describe.each([
  ['read in place', false],
  ['by data events', true],
])('a plain connection by ticket, %s', (_, neverDirect) => {
  it('carries a conversation, both ways at once', async () => {
    const { keepers, listener } = await keeping(neverDirect);
    const client = new Probe();
    const ticket = await ticketFrom(listener, { migration: 'm' });
    const channel = await connect(listener.address, client, { security: SECURITY, ticket, lingerMs: 200 });
    const bodies = [1, 2, 15, 16, 17, 1007, 1008, 1009, 5000, 100_001, MAX_FRAME_BYTES].map((bytes) =>
      pattern(bytes, bytes),
    );
    channel.send(HELLO, 0, encodeJson({ protocol: 3 }));
    for (const [i, body] of bodies.entries()) channel.send(PUT, i, [body.subarray(0, 1), body.subarray(1)]);
    for (const i of bodies.keys()) channel.send(GET, i);
    channel.send(GET, 99);
    await until(() => client.messages.length === 2 * bodies.length + 2);
    const answers = client.messages.map(({ header, body }) => ({ type: header.type, id: header.id, body }));
    expect(answers[0]).toMatchObject({ type: WELCOME });
    for (const [i, body] of bodies.entries()) {
      expect(answers[1 + i]).toMatchObject({ type: STORED, id: i });
      const frame = answers[1 + bodies.length + i]!;
      expect(frame).toMatchObject({ type: FRAME, id: i });
      expect(same(frame.body, body)).toBe(true);
    }
    expect(answers.at(-1)).toMatchObject({ type: MISSING, id: 99 });
    expect(keepers[0]!.ticket!.context).toEqual({ migration: 'm' });
    expect(keepers[0]!.channel!.direct).toBe(!neverDirect);
    channel.end();
    expect(await client.closed).toBe(null);
    expect(await keepers[0]!.closed).toBe(null);
  });

  it('throws away what is to be discarded, waits when it is told to, and still finds every proof', async () => {
    const { keepers, listener } = await keeping(neverDirect);
    const channel = await connect(listener.address, new Probe(), { ticket: await ticketFrom(listener), lingerMs: 200 });
    await until(() => keepers.length === 1);
    const keeper = keepers[0]!;
    const memory = new Uint8Array(MAX_FRAME_BYTES);
    let waits = 0;
    keeper.target = (header) => {
      if (header.type !== PUT) return null;
      if (header.id % 3 === 0) return 'discard';
      if (header.id % 3 === 1) return memory.subarray(0, header.bodyBytes);
      if (waits++ % 2 === 0) {
        setImmediate(() => keeper.channel!.resume());
        return 'wait';
      }
      return null;
    };
    for (let id = 1; id <= 30; id++) channel.send(PUT, id, pattern(id * 8_009, id));
    await until(() => keeper.kept.size === 20);
    for (const [id, body] of keeper.kept) expect(same(body, pattern(id * 8_009, id))).toBe(true);
    expect(keeper.isClosed).toBe(false);
  });

  it('understands a peer whose bytes drip', async () => {
    const { keepers, listener } = await keeping(neverDirect);
    const ticket = await ticketFrom(listener);
    const { out } = proofsOf(Buffer.from(ticket.secret, 'hex'), 'client');
    const said = [preambleOf(ticket)];
    const say = (whole: Uint8Array) => {
      const [header, body] = [whole.subarray(0, 16), whole.subarray(16)];
      said.push(header, out.update(header).end());
      if (body.byteLength > 0) said.push(body, out.update(body).end());
    };
    say(message(HELLO, 0, encodeJson({})));
    say(message(PUT, 5, pattern(40, 5)));
    say(message(GET, 6));
    const socket = await raw(listener);
    for (const byte of Buffer.concat(said)) {
      socket.write(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await until(() => keepers[0]?.messages.length === 3);
    expect(same(keepers[0]!.kept.get(5)!, pattern(40, 5))).toBe(true);
  });
});

describe('somebody on the way', () => {
  const blocks = [pattern(3000, 1), pattern(70_000, 2), pattern(10, 3)];

  /** The client's side of a conversation through `address`; resolves when the connection is gone or everything is answered. */
  async function converse(address: { host: string; port: number }, ticket: Ticket) {
    const client = new Probe();
    const channel = await connect(address, client, { ticket, lingerMs: 200 });
    channel.send(HELLO, 0, encodeJson({}));
    for (const [i, block] of blocks.entries()) channel.send(PUT, i + 1, block);
    await until(() => client.isClosed || client.messages.length === 1 + blocks.length);
    if (!client.isClosed) channel.end();
    const error = await client.closed;
    return {
      error,
      stored: client.messages.filter(({ header }) => header.type === STORED).map(({ header }) => header.id),
    };
  }

  /** What must hold whatever was done: what is kept was sent, and what the client believes to be stored is kept. */
  function mustHold(keepers: Keeper[], stored: number[]): void {
    for (const keeper of keepers) {
      for (const [id, body] of keeper.kept) expect(same(body, blocks[id - 1] ?? new Uint8Array(0))).toBe(true);
    }
    for (const id of stored) expect(keepers.some(({ kept }) => kept.has(id))).toBe(true);
  }

  /** Changes one byte, the n-th of all. */
  const flipping = (at: number): Change => {
    let passed = 0;
    return (bytes) => {
      if (at >= passed && at < passed + bytes.byteLength) bytes[at - passed]! ^= 0x20;
      passed += bytes.byteLength;
      return bytes;
    };
  };

  it('who listens only is not noticed', async () => {
    const { keepers, listener } = await keeping();
    const { error, stored } = await converse(
      await between(
        listener,
        (b) => b,
        (b) => b,
      ),
      await ticketFrom(listener),
    );
    expect(error).toBe(null);
    expect(stored).toEqual([1, 2, 3]);
    mustHold(keepers, stored);
  });

  it('who changes a byte, in either direction, breaks the connection, and nothing wrong is kept or believed', async () => {
    // What the client says: preamble 20 | HELLO 16 + 16 | {} 2 + 16 | PUT 16 + 16 | 3000 + 16 | PUT ... ; the node: WELCOME 16 + 16 | 14 + 16 | STORED 16 + 16 | 8 + 16 ...
    const there = [0, 5, 20, 21, 30, 40, 52, 54, 70, 72, 78, 80, 90, 102, 1500, 3101, 3105, 3120, 3140, 40_000, 73_180];
    const back = [0, 4, 17, 33, 50, 62, 64, 70, 80, 94, 100, 110, 118, 130];
    for (const [there_, back_] of [...there.map((at) => [at, -1] as const), ...back.map((at) => [-1, at] as const)]) {
      const { keepers, listener } = await keeping();
      const address = await between(listener, flipping(there_), flipping(back_));
      const { error, stored } = await converse(address, await ticketFrom(listener));
      expect(error, `byte ${there_} or ${back_}`).toMatchObject({ code: 'PEER_GONE' });
      expect(stored.length).toBeLessThan(3);
      mustHold(keepers, stored);
      // The node never takes it for a fault of the client's, who would be told so by ERROR.
      await until(() => keepers.every(({ isClosed }) => isClosed));
      for (const keeper of keepers) {
        const closed = await keeper.closed;
        if (closed) expect(closed.code).toBe('PEER_GONE');
      }
      await listener.close();
    }
  });

  it('who leaves out, repeats or exchanges messages breaks the connection', async () => {
    const piece = (id: number) => 32 + blocks[id - 1]!.byteLength + 16;
    const start = 20 + 32 + 2 + 16;
    const [one, two] = [piece(1), piece(2)];
    const rearranged: ((all: Buffer) => Buffer)[] = [
      (all) => Buffer.concat([all.subarray(0, start), all.subarray(start + one)]),
      (all) =>
        Buffer.concat([all.subarray(0, start + one), all.subarray(start, start + one), all.subarray(start + one)]),
      (all) =>
        Buffer.concat([
          all.subarray(0, start),
          all.subarray(start + one, start + one + two),
          all.subarray(start, start + one),
          all.subarray(start + one + two),
        ]),
    ];
    for (const rearrange of rearranged) {
      const { keepers, listener } = await keeping();
      let all = Buffer.alloc(0);
      const total = start + piece(1) + piece(2) + piece(3);
      const address = await between(listener, (bytes) => {
        all = Buffer.concat([all, bytes]);
        return all.byteLength < total ? null : rearrange(all);
      });
      const { error, stored } = await converse(address, await ticketFrom(listener));
      expect(error).toMatchObject({ code: 'PEER_GONE' });
      mustHold(keepers, stored);
    }
  });

  it('who says STORED for the node is not believed: not made up, not sent back, not from another connection', async () => {
    const plain = message(STORED, 1, encodeU64s(5));
    const other = new Prover(pattern(32, 9));
    const proved = Buffer.concat([
      plain.subarray(0, 16),
      other.update(plain.subarray(0, 16)).end(),
      plain.subarray(16),
      other.update(plain.subarray(16)).end(),
    ]);
    // Says something to the client instead of passing on what the client said.
    const saying = (what: (bytes: Buffer) => Uint8Array): Change => {
      return (bytes, { back }) => {
        back.write(what(bytes));
        return null;
      };
    };
    let preamble = 20;
    const mirrored = saying((bytes) => {
      const rest = bytes.subarray(Math.min(preamble, bytes.byteLength));
      preamble -= bytes.byteLength - rest.byteLength;
      return rest;
    });
    const forged = [saying(() => plain), saying(() => proved), mirrored, saying((bytes) => bytes)];
    for (const forge of forged) {
      const { keepers, listener } = await keeping();
      const { error, stored } = await converse(await between(listener, forge), await ticketFrom(listener));
      expect(error).toMatchObject({ code: 'PEER_GONE' });
      expect(stored).toEqual([]);
      expect(keepers.flatMap(({ messages }) => messages)).toEqual([]);
    }
  });

  it('who says all of it again later is not let in, nor who takes the ticket without its secret', async () => {
    const { keepers, listener } = await keeping();
    let said = Buffer.alloc(0);
    const address = await between(listener, (bytes) => {
      said = Buffer.concat([said, bytes]);
      return bytes;
    });
    const { error } = await converse(address, await ticketFrom(listener));
    expect(error).toBe(null);
    const again = await raw(listener);
    again.write(said);
    await gone(again);
    expect(listener.counts.refused).toBe(1);
    expect(keepers.length).toBe(1);

    const thief = await raw(listener);
    const stolen = listener.tickets.issue(null);
    thief.write(
      Buffer.concat([preambleOf(stolen), message(HELLO, 0, encodeJson({})), message(PUT, 1, pattern(100, 4))]),
    );
    await gone(thief);
    expect(keepers[1]!.messages).toEqual([]);
    expect(await keepers[1]!.closed).toMatchObject({ code: 'PEER_GONE' });
  });
});

describe('a ticket', () => {
  it('is good once, for its time, for its own listener, and gives its context back', async () => {
    const tickets = new Tickets();
    const ticket = tickets.issue({ migration: 7 });
    expect(ticket.id).toMatch(/^[0-9a-f]{32}$/);
    expect(ticket.secret).toMatch(/^[0-9a-f]{64}$/);
    expect(new Tickets().use(ticket.id)).toBe(null);
    expect(tickets.use(ticket.id)).toMatchObject({
      context: { migration: 7 },
      secret: Buffer.from(ticket.secret, 'hex'),
    });
    expect(tickets.use(ticket.id)).toBe(null);
    const brief = new Tickets(1);
    const late = brief.issue(null);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(brief.use(late.id)).toBe(null);
  });

  it('makes room for newer ones', () => {
    const tickets = new Tickets();
    const all = Array.from({ length: 1030 }, (_, i) => tickets.issue(i));
    const good = all.map(({ id }) => tickets.use(id)?.context).filter((context) => context !== undefined);
    expect(good.length).toBe(1024);
    expect(good[0]).toBe(6);
  });

  it('is read from a message with care', () => {
    const good = { id: 'a'.repeat(32), secret: 'b'.repeat(64) };
    expect(needTicket({ ticket: good }, 'ticket', 'WELCOME')).toEqual(good);
    expect(needTicket({}, 'ticket', 'WELCOME')).toBe(null);
    for (const ticket of [null, 7, {}, { ...good, id: 'a' }, { ...good, secret: 'B'.repeat(64) }, { ...good, id: 3 }]) {
      expect(() => needTicket({ ticket }, 'ticket', 'WELCOME')).toThrow(expect.objectContaining({ code: 'PROTOCOL' }));
    }
    const preamble = preambleOf(good);
    expect(readPreamble(preamble)).toBe(good.id);
    for (let bytes = 0; bytes < 20; bytes++) expect(readPreamble(preamble.subarray(0, bytes))).toBe(undefined);
    expect(readPreamble(Buffer.from('ABDF'))).toBe(null);
    expect(readPreamble(Uint8Array.of(1))).toBe(null);
  });

  it('is not taken by a listener without a key', async () => {
    const server = new Probe();
    const listener = await listen('127.0.0.1:0', () => server);
    onTestFinished(() => listener.close());
    const client = new Probe();
    await connect(listener.address, client, { ticket: listener.tickets.issue(null), lingerMs: 100 });
    expect(await server.closed).toMatchObject({ code: 'PROTOCOL' });
    expect(await client.closed).toMatchObject({ code: 'PEER_GONE' });
  });
});
