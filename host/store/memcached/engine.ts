// One memcached as an engine. It makes no copies: R copies are at R of them, each of which is a store of its own. A server that was restarted has forgotten
// everything, and is known by that; so nobody waits for one that is not there.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../../bindings/errors.js';
import { formatAddress } from '../../wire/address.js';
import { MAX_FRAME_BYTES } from '../../wire/messages.js';
import type { StoreAddress } from '../address.js';
import type { Added, Engine, EngineOptions, ReadTarget } from '../engine.js';
import { Pipe } from '../pipe.js';
import { flag, meta, type Reply } from './meta.js';

const RETRY_MS = 100;
/** A value's header and key, at most. */
const ITEM_BYTES = 512;
/** Slabs are not full to the last byte. */
const OVERHEAD = 1.25;

/** @throws {AbdmError} PEER_UNREACHABLE, UNAUTHENTICATED. */
export async function openMemcached(address: StoreAddress, options: EngineOptions): Promise<Engine> {
  const engine = new MemcachedEngine(address, options);
  await engine.open();
  return engine;
}

class MemcachedEngine implements Engine {
  readonly copies = 1;
  readonly #address: StoreAddress;
  readonly #options: EngineOptions;
  #pipe: Pipe<Reply> | null = null;
  #opening: Promise<Pipe<Reply>> | null = null;
  #closed = false;

  constructor(address: StoreAddress, options: EngineOptions) {
    this.#address = address;
    this.#options = options;
  }

  /** @throws {AbdmError} PEER_UNREACHABLE, with what the system says as its cause; UNAUTHENTICATED. */
  async open(): Promise<void> {
    const { signal } = this.#options;
    const stop = () => this.close();
    signal?.addEventListener('abort', stop);
    try {
      signal?.throwIfAborted();
      await this.#connect();
    } catch (cause) {
      this.close();
      const { code, message, cause: why } = asAbdmError(cause);
      throw new AbdmError(code === 'PEER_GONE' ? 'PEER_UNREACHABLE' : code, message, { cause: why });
    } finally {
      signal?.removeEventListener('abort', stop);
    }
  }

  async check(): Promise<void> {
    const settings = await this.#stats('settings');
    const { text } = this.#address;
    if (settings.get('evictions') !== 'off') {
      throw new AbdmError('USAGE', `${text}: it forgets frames when it is full; start it with -M, or use another one`);
    }
    const longest = Number(settings.get('item_size_max'));
    if (!(longest >= MAX_FRAME_BYTES + ITEM_BYTES)) {
      const what = `a value there has at most ${longest} bytes, and a frame ${MAX_FRAME_BYTES}`;
      throw new AbdmError('USAGE', `${text}: ${what}; start it with -I 1m`);
    }
  }

  async freeBytes(): Promise<number> {
    const stats = await this.#stats();
    return Math.max(0, Math.floor((Number(stats.get('limit_maxbytes')) - Number(stats.get('bytes'))) / OVERHEAD)) || 0;
  }

  async ping(): Promise<void> {
    await this.#ask(['mn\r\n']);
  }

  async add(key: string, value: Uint8Array, ttlMs: number): Promise<Added> {
    const { word, flags } = await this.#ask([`ms ${key} ${value.byteLength} T${seconds(ttlMs)} ME\r\n`, value, '\r\n']);
    if (word === 'HD') return 'stored';
    if (word === 'NS') return 'exists';
    if (word === 'SERVER_ERROR' && flags.join(' ').startsWith('out of memory')) return 'full';
    throw this.#refused(word, flags);
  }

  async swap(key: string, expected: Uint8Array, value: Uint8Array | null, ttlMs: number): Promise<boolean> {
    const there = await this.#value(key);
    if (there === null || Buffer.compare(there.value, expected) !== 0) return false;
    const same = `C${there.version}`;
    const { word, flags } =
      value === null
        ? await this.#ask([`md ${key} ${same}\r\n`])
        : await this.#ask([`ms ${key} ${value.byteLength} T${seconds(ttlMs)} ${same}\r\n`, value, '\r\n']);
    if (word === 'HD') return true;
    if (word === 'EX' || word === 'NF' || word === 'NS') return false;
    throw this.#refused(word, flags);
  }

  async get(key: string): Promise<Uint8Array | null> {
    return (await this.#value(key))?.value ?? null;
  }

  async read(key: string, target: ReadTarget): Promise<number | null> {
    const most = target.into?.byteLength ?? 0;
    const { word, bytes, flags } = await this.#ask([`mg ${key} v\r\n`], target);
    if (word === 'EN') return null;
    if (word !== 'VA') throw this.#refused(word, flags);
    return bytes <= most ? bytes : null;
  }

  async touch(keys: readonly string[], ttlMs: number | null): Promise<boolean[]> {
    const how = ttlMs === null ? '' : ` T${seconds(ttlMs)}`;
    const replies = await Promise.all(keys.map((key) => this.#ask([`mg ${key}${how}\r\n`])));
    return replies.map(({ word, flags }) => {
      if (word !== 'HD' && word !== 'EN') throw this.#refused(word, flags);
      return word === 'HD';
    });
  }

  async ttlMs(key: string): Promise<number> {
    const reply = await this.#ask([`mg ${key} t\r\n`]);
    return reply.word === 'HD' ? Math.max(0, flag(reply, 't') - 1) * 1000 : 0;
  }

  async remove(keys: readonly string[]): Promise<number> {
    const replies = await Promise.all(keys.map((key) => this.#ask([`md ${key}\r\n`])));
    return replies.filter(({ word }) => word === 'HD').length;
  }

  close(): void {
    this.#closed = true;
    this.#pipe?.close();
  }

  async #value(key: string): Promise<{ value: Uint8Array; version: number } | null> {
    const into = new Uint8Array(MAX_FRAME_BYTES);
    const reply = await this.#ask([`mg ${key} v c\r\n`], { into });
    if (reply.word === 'EN') return null;
    if (reply.word !== 'VA' || reply.bytes > into.byteLength) throw this.#refused(reply.word, reply.flags);
    return { value: into.slice(0, reply.bytes), version: flag(reply, 'c') };
  }

  async #stats(of = ''): Promise<ReadonlyMap<string, string>> {
    return (await this.#ask([`stats${of && ` ${of}`}\r\n`])).stats;
  }

  /** Asks, on another connection if this one breaks. @throws {AbdmError} PEER_GONE once it is closed, UNAUTHENTICATED. */
  async #ask(parts: readonly (string | Uint8Array)[], target?: ReadTarget): Promise<Reply> {
    for (;;) {
      if (this.#closed) throw new AbdmError('PEER_GONE', `the connection to ${this.#address.text} has ended`);
      try {
        const pipe = this.#pipe?.open ? this.#pipe : await this.#connect();
        return await pipe.ask(parts, target);
      } catch (cause) {
        const error = asAbdmError(cause);
        if (error.code === 'UNAUTHENTICATED') throw error;
      }
      if (!this.#closed) await sleep(RETRY_MS, undefined, { ref: false });
    }
  }

  #connect(): Promise<Pipe<Reply>> {
    this.#opening ??= this.#open().finally(() => {
      this.#opening = null;
    });
    return this.#opening;
  }

  async #open(): Promise<Pipe<Reply>> {
    const [host] = this.#address.hosts;
    const { onOpen, timeoutMs } = this.#options;
    const pipe = new Pipe(host!, false, meta(), timeoutMs, (why) => {
      if (!this.#closed) onOpen(false, why.message);
    });
    const { login } = this.#address;
    if (login) {
      const words = `${login.user} ${login.password}`;
      const { word } = await pipe.ask([`set abdm 0 0 ${Buffer.byteLength(words)}\r\n${words}\r\n`]);
      if (word !== 'STORED') {
        pipe.close('it was not let in');
        const text = `${formatAddress(host!)} does not let us in: give its user and password in --store or ABDM_STORE`;
        throw new AbdmError('UNAUTHENTICATED', text);
      }
    }
    const { word, flags } = await pipe.ask(['mn\r\n']);
    if (word !== 'MN') {
      pipe.close('it does not understand');
      throw this.#refused(word, flags);
    }
    if (this.#closed) pipe.close();
    this.#pipe = pipe;
    onOpen(true);
    return pipe;
  }

  #refused(word: string, flags: readonly string[]): AbdmError {
    const text = `${this.#address.text} answers ${[word, ...flags].join(' ')}`;
    if (/unauthenticated/i.test(text)) {
      return new AbdmError('UNAUTHENTICATED', `${text}; give its user and password in --store or ABDM_STORE`);
    }
    return new AbdmError('PEER_ABORTED', text);
  }
}

/** Whole ones, and one more, for its clock ticks once a second. */
function seconds(ms: number): number {
  return Math.ceil(ms / 1000) + 1;
}
