// Valkey and Redis, one server or a cluster, as an engine. Commands go through the client library; blocks beside it (pipe.ts), for it takes five times the CPU
// for them.
//
//   R copies       WAIT for R - 1 replicas behind every write: the source's link carries each block once, and it is the copies that a failover finds. A
//                  server with fewer replicas makes one copy, and says so (`copies`)
//   a failover     what was under way is sent again to whoever has the slot then; SET NX does it once

import { setTimeout as sleep } from 'node:timers/promises';
import type { Redis } from 'ioredis';
import { AbdmError, asAbdmError } from '../../../bindings/errors.js';
import { type Address, formatAddress, parseAddress } from '../../wire/address.js';
import { MAX_FRAME_BYTES } from '../../wire/messages.js';
import type { StoreAddress } from '../address.js';
import type { Added, Engine, EngineOptions, ReadTarget } from '../engine.js';
import { type Client, connect, parseInfo, told, usage } from './client.js';
import { type BlockLine, BlockLines, CONFIRM_MS } from './line.js';
import { command, type Reply, ReplyError } from './resp.js';
import { SLOTS, slotOf } from './slot.js';

const RETRY_MS = 100;
/** What a value of a frame's length takes, for each of its bytes: the allocator rounds up. */
const OVERHEAD = 1.28;
/** The server, or who has the slot, is about to change: asked again, it goes well. */
const PASSING =
  /^(MOVED|ASK|TRYAGAIN|CLUSTERDOWN|LOADING|READONLY|MASTERDOWN|BUSY)|redirections|slots cache|timed out|Connection is closed|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EHOSTUNREACH|Stream isn't writeable/i;
/** One command, so that nobody comes between; an empty value removes the key. */
const SWAP = `if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then redis.call('DEL', KEYS[1]) else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1`;

/** @throws {AbdmError} USAGE, UNAUTHENTICATED, PEER_UNREACHABLE. */
export async function openRedis(address: StoreAddress, options: EngineOptions): Promise<Engine> {
  const engine = new RedisEngine(address, options, await connect(address, options));
  try {
    await engine.countReplicas(options.copies);
  } catch (error) {
    engine.close();
    throw error;
  }
  return engine;
}

class RedisEngine implements Engine {
  copies = 1;
  readonly #address: StoreAddress;
  readonly #client: Client;
  readonly #lines: BlockLines;
  #closed = false;

  constructor(address: StoreAddress, { timeoutMs, onOpen }: EngineOptions, client: Client) {
    this.#address = address;
    this.#client = client;
    this.#lines = new BlockLines(address, timeoutMs);
    let why: string | undefined;
    client.redis.on('error', (error: unknown) => {
      why = told(address, error).message;
    });
    client.redis.on('ready', () => onOpen(true));
    client.redis.on('close', () => onOpen(false, why));
  }

  /** It makes so many copies if every server has replicas for them. */
  async countReplicas(copies: number): Promise<void> {
    const infos = await this.#infos('replication');
    const least = Math.min(...infos.map((info) => Number(info.get('connected_slaves') ?? 0)));
    if (least >= copies - 1) this.copies = copies;
  }

  async check(): Promise<void> {
    for (const info of await this.#infos('memory')) {
      const policy = info.get('maxmemory_policy');
      if (policy === 'noeviction') continue;
      const text = `it may forget frames when it is full (maxmemory-policy ${policy})`;
      throw usage(this.#address, `${text}; use one with CONFIG SET maxmemory-policy noeviction`);
    }
    for (const server of this.#servers()) {
      // Whoever may not read the setting has the default, 512 MB, more often than not.
      const [, longest] = (await server.config('GET', 'proto-max-bulk-len').catch(() => [])) as string[];
      if (longest === undefined || Number(longest) >= MAX_FRAME_BYTES) continue;
      const text = `a value there has at most ${longest} bytes, and a frame ${MAX_FRAME_BYTES}`;
      throw usage(this.#address, `${text}; raise proto-max-bulk-len`);
    }
  }

  async freeBytes(): Promise<number> {
    const infos = await this.#infos('memory');
    const free = infos.map((info) => {
      const most = Number(info.get('maxmemory')) || Number(info.get('total_system_memory'));
      return Math.max(0, most - Number(info.get('used_memory')));
    });
    // Keys are spread evenly: the fullest server is full first.
    return Math.floor((Math.min(...free) * free.length) / OVERHEAD) || 0;
  }

  async ping(): Promise<void> {
    const { cluster } = this.#client;
    const pings = this.#servers().map((server) => (cluster ? server.call('CLUSTER', 'INFO') : server.ping()));
    const said = await Promise.any(pings).catch((cause) => {
      throw told(this.#address, cause.errors?.[0] ?? cause);
    });
    // Where a part of a cluster is down, who asks for all of it would be told again and again that it is there.
    if (cluster && parseInfo(String(said)).get('cluster_slots_ok') !== String(SLOTS)) {
      throw told(this.#address, 'a part of the cluster is down');
    }
  }

  async add(key: string, value: Uint8Array, ttlMs: number): Promise<Added> {
    const set = command('SET', key, value, 'PX', String(ttlMs), 'NX');
    const [reply, confirmed] = await this.#send(key, async (line, asking) => {
      const added = line.ask(set, asking);
      return this.copies > 1 ? Promise.all([added, this.#confirm(line, asking, key, ttlMs)]) : [await added];
    });
    if (reply instanceof ReplyError && reply.text.startsWith('OOM')) return 'full';
    if (reply instanceof ReplyError) throw this.#refused(reply.text);
    if (this.copies > 1) this.#requireConfirmed(confirmed);
    return reply === null ? 'exists' : 'stored';
  }

  async swap(key: string, expected: Uint8Array, value: Uint8Array | null, ttlMs: number): Promise<boolean> {
    const [old, next] = [Buffer.from(expected), Buffer.from(value ?? [])];
    const done = await this.#ask(() => this.#client.redis.eval(SWAP, 1, key, old, next, ttlMs));
    if (done === 1 && value !== null && this.copies > 1) {
      const [confirmed] = await this.#send(key, async (line, asking) => [
        await this.#confirm(line, asking, key, ttlMs),
      ]);
      this.#requireConfirmed(confirmed);
    }
    return done === 1;
  }

  async get(key: string): Promise<Uint8Array | null> {
    return this.#ask(() => this.#client.redis.getBuffer(key));
  }

  async read(key: string, target: ReadTarget): Promise<number | null> {
    const most = target.into?.byteLength ?? 0;
    const get = command('GET', key);
    const [reply] = await this.#send(key, async (line, asking) => [await line.ask(get, asking, target)], target);
    if (reply instanceof ReplyError) throw this.#refused(reply.text);
    if (typeof reply !== 'object' || reply === null) return null;
    return reply.bytes <= most ? reply.bytes : null;
  }

  async touch(keys: readonly string[], ttlMs: number | null): Promise<boolean[]> {
    const { redis } = this.#client;
    const touches = keys.map((key) => {
      return this.#ask<number>(() => (ttlMs === null ? redis.exists(key) : redis.pexpire(key, ttlMs)));
    });
    return (await Promise.all(touches)).map((was) => was === 1);
  }

  async ttlMs(key: string): Promise<number> {
    return Math.max(0, await this.#ask(() => this.#client.redis.pttl(key)));
  }

  async remove(keys: readonly string[]): Promise<number> {
    const { redis, cluster } = this.#client;
    // The keys of one command must be at one server.
    if (!cluster) return this.#ask(() => redis.unlink(...keys));
    const removed = await Promise.all(keys.map((key) => this.#ask(() => redis.unlink(key))));
    return removed.reduce((sum, one) => sum + one, 0);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#client.redis.disconnect();
    this.#lines.close();
  }

  /**
   * How many replicas have what is under this key, or what is wrong. Of what was there already too: a write behind it is confirmed only with it.
   */
  async #confirm(line: BlockLine, asking: boolean, key: string, ttlMs: number): Promise<Reply> {
    const written = line.ask(command('PEXPIRE', key, String(ttlMs)), asking);
    const [reply, confirmed] = await Promise.all([written, line.confirm(this.copies - 1)]);
    return reply instanceof ReplyError ? reply : confirmed;
  }

  /** @throws {AbdmError} PEER_ABORTED. */
  #requireConfirmed(confirmed: Reply | undefined): void {
    if (typeof confirmed === 'number' && confirmed >= this.copies - 1) return;
    const many = confirmed instanceof ReplyError ? confirmed.text : String(confirmed);
    const text = `${many} of ${this.copies - 1} replicas have confirmed a write within ${CONFIRM_MS} ms`;
    throw new AbdmError('PEER_ABORTED', `${this.#address.text}: ${text}`);
  }

  /** Every server that writes. */
  #servers(): Redis[] {
    const { cluster, redis } = this.#client;
    return cluster ? cluster.nodes('master') : [redis as Redis];
  }

  async #infos(section: string): Promise<Map<string, string>[]> {
    const infos = await this.#ask(() => Promise.all(this.#servers().map((server) => server.info(section))));
    return infos.map(parseInfo);
  }

  /** Asks the library, again and again while servers change. */
  async #ask<T>(ask: () => Promise<T>): Promise<T> {
    for (;;) {
      this.#requireOpen();
      try {
        return await ask();
      } catch (cause) {
        this.#requireOpen();
        const message = cause instanceof Error ? cause.message : String(cause);
        if (!PASSING.test(message)) throw this.#refused(message);
      }
      await sleep(RETRY_MS, undefined, { ref: false });
    }
  }

  /** Sends what is about one key to whoever has it, again and again while servers change. The first reply decides. */
  async #send<T extends readonly [Reply, ...Reply[]]>(
    key: string,
    send: (line: BlockLine, asking: boolean) => Promise<T>,
    target?: ReadTarget,
  ): Promise<T> {
    let moved: string | null = null;
    for (;;) {
      this.#requireOpen();
      if (target?.into === null) throw new AbdmError('CANCELLED', 'nobody waits for it any more');
      const asking = moved?.startsWith('ASK') ?? false;
      const server = moved ? serverOf(moved) : this.#serverOf(key);
      moved = null;
      try {
        if (server) {
          const replies = await send(await this.#lines.to(server), asking);
          const [reply] = replies;
          if (!(reply instanceof ReplyError && PASSING.test(reply.text))) return replies;
          if (/^(MOVED|ASK) /.test(reply.text)) moved = reply.text;
        }
      } catch (cause) {
        const error = asAbdmError(cause);
        if (error.code === 'UNAUTHENTICATED') throw this.#refused(error.message);
      }
      this.#requireOpen();
      if (!moved?.startsWith('ASK')) this.#client.cluster?.refreshSlotsCache();
      if (!moved) await sleep(RETRY_MS, undefined, { ref: false });
    }
  }

  #serverOf(key: string): Address | null {
    const { cluster } = this.#client;
    if (!cluster) return this.#address.hosts.find(({ port, host }) => this.#isConnectedTo(host, port))!;
    const name = cluster.slots[slotOf(key)]?.[0];
    return name ? hostAndPort(name) : null;
  }

  #isConnectedTo(host: string, port: number): boolean {
    const { options } = this.#client.redis as Redis;
    return options.host === host && options.port === port;
  }

  #refused(message: string): AbdmError {
    const error = told(this.#address, message);
    if (error.code === 'UNAUTHENTICATED') return error;
    const full = message.startsWith('OOM');
    return new AbdmError(full ? 'NO_ROOM' : 'PEER_ABORTED', error.message);
  }

  #requireOpen(): void {
    if (this.#closed) throw new AbdmError('PEER_GONE', `the connection to ${this.#address.text} has ended`);
  }
}

/** Of `MOVED 7 10.0.0.8:6379`. */
function serverOf(text: string): Address | null {
  const name = text.split(' ')[2];
  return name ? hostAndPort(name) : null;
}

/** The servers of a cluster write IPv6 addresses without brackets. */
function hostAndPort(name: string): Address | null {
  const at = name.lastIndexOf(':');
  const host = name.slice(0, at).replace(/^\[|\]$/g, '');
  try {
    return parseAddress(formatAddress({ host, port: Number(name.slice(at + 1)) }), 1);
  } catch {
    return null;
  }
}
