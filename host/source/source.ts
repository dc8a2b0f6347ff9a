// The source: reads images straight into the engine's memory, divides them, and scatters the frames over the nodes (host/mam/scatter.ts). The exit is when
// the last frame and the index of all of them are where they should be; then the source may go, whether there is a destination or not.
//
// What may go wrong before the exit, and what becomes of it:
//   a node refuses a frame, is silent, or is gone      the frame goes to others
//   all nodes that had a frame are gone                it is divided again: the image has not changed
//   the destination is gone                            scattering goes on, and it is told everything when it comes back; if not, the VM waits at the nodes
//   the destination gives up, or the operator          aborted
//   no node has room, for 10 s                         aborted: NO_ROOM
//   the image cannot be read                           aborted: IMAGE
//   any of these when the nodes know already           paused-recoverable: the destination may go on without us, so nothing is taken away
// Aborted means: the destination is told why, the nodes are told to forget the frames, and the VM stays here, as it was.
//
// With no nodes (direct) everything goes straight to the destination, and whatever happens to it aborts the migration.

import { randomBytes } from 'node:crypto';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { KEY_BYTES, PAGE_BYTES } from '../../bindings/abi.js';
import type { Compression } from '../../bindings/divider.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { ImageSource } from '../image/image.js';
import { Framer } from '../mam/framer.js';
import { NodeIndex } from '../mam/index.js';
import type { Kept } from '../mam/ledger.js';
import { Scatter } from '../mam/scatter.js';
import { migrationSecret } from '../mam/secret.js';
import { reasonOf, type Status, type Summary, usage, type VmSummary } from '../summary.js';
import { RateLimit } from '../wire/rate.js';
import { isSecured, OPEN, type Security } from '../wire/security.js';
import { DestinationLink } from './link.js';
import { checkOptions, isDirect } from './options.js';

/** What leaves, and where to. */
export interface EjectOptions {
  vms: readonly { name: string; image: ImageSource }[];
  /** HOST:PORT of the destination. */
  to?: string;
  /** Instead of a destination: everything stays at the nodes until somebody claims it, or the lease runs out. */
  park?: { leaseMs: number };
  /** The key of parked VMs, 32 bytes: who has it can read them. */
  vmKey?: Uint8Array;
  /** HOST:PORT of each intermediate, or whoever announces itself; empty: frames go straight to the destination. */
  intermediates: readonly string[] | 'announced';
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  /** Frames go straight to the destination, and nowhere else. */
  direct?: boolean;
  /** Copies of each frame. Default 1. */
  replicas?: number;
  security?: Security;
  /** Default lz4. */
  compress?: Compression;
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  /** How long the destination may take to answer, in milliseconds. Default 30,000. */
  answerMs?: number;
}

const ANSWER_MS = 30_000;
/** A destination that does not confirm the exit within this is not waited for, where there are nodes. */
const CONFIRM_MS = 3_000;
/** Frames that are complete stay so long at nodes that nobody is connected to. */
const LEASE_MS = 600_000;
/** How long a destination is given to hear why the migration is over, before the nodes forget the frames. */
const FAIL_MS = 500;

/** A migration as its source sees it. Create, then `run` once. The images stay open; they are the caller's. */
export class Ejection {
  readonly #options: EjectOptions;
  readonly #direct: boolean;
  readonly #started = performance.now();
  readonly #vms: VmSummary[];
  readonly #totalBytes: number;
  readonly #limit: RateLimit;
  /** Aborts the run: by `cancel`, a destination that gives up, or a frame that no node takes. */
  readonly #abort = new AbortController();
  #phase: Status['phase'] = 'preparing';
  #doneBytes = 0;
  #frameBytes = 0;
  #exitTimeMs: number | null = null;
  #committed = false;
  /** The destination has said that it will not run it. */
  #givenUp = false;
  #index: NodeIndex | null = null;
  #scatter: Scatter | null = null;
  #framer!: Framer;
  #link: DestinationLink | null = null;
  /** The end of the work on frames that have to be divided again. */
  #again: Promise<void> = Promise.resolve();
  /** Resolved whenever memory for frames is free or something ends. */
  #waiting: (() => void)[] = [];

  /** @throws {AbdmError} USAGE if the options do not fit each other. */
  constructor(options: EjectOptions) {
    checkOptions(options);
    this.#options = options;
    this.#direct = isDirect(options);
    this.#limit = new RateLimit(options.rateBytesPerS);
    this.#totalBytes = options.vms.reduce((sum, { image }) => sum + image.bytes, 0);
    this.#vms = options.vms.map(({ name, image }) => ({
      name,
      imageBytes: image.bytes,
      pages: image.pages,
      zeroPages: 0,
      duplicatePages: 0,
      compressedPages: 0,
      normalPages: 0,
      exitTimeMs: null,
      totalMigrationTimeMs: null,
      downtimeMs: null,
      verified: null,
      mode: 'stop',
      dirtySyncCount: 0,
      postcopyRequests: 0,
      faults: null,
      outcome: 'aborted',
      reason: null,
    }));
  }

  /** How far it has come. */
  status(): Status {
    const trouble = this.#link?.trouble;
    return {
      phase: this.#phase,
      doneBytes: this.#doneBytes,
      totalBytes: this.#totalBytes,
      wireBytes: this.#frameBytes,
      mergedBytes: this.#link?.mergedBytes ?? null,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: this.#scatter?.mam.shares ?? [],
      warnings: [...(trouble ? [trouble.message] : []), ...(this.#scatter?.mam.warnings ?? [])],
      reason: reasonOf((this.#abort.signal.reason as AbdmError | undefined) ?? null),
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
  }

  /**
   * Ends it as aborted, as soon as the batch at hand is done: nothing stays at the nodes, the images are as they were. False, and nothing happens, if it is
   * too late: others may have taken over.
   */
  cancel(reason = 'cancelled'): boolean {
    if (this.#committed) return false;
    this.#fail(new AbdmError('CANCELLED', reason));
    return true;
  }

  /** Others may have taken over: there is no way back by ourselves, and what was stopped for its image must not go on while the end is not known. */
  get committed(): boolean {
    return this.#committed;
  }

  /** Migrates. Never throws for what may happen to a migration: the summary says what did. */
  async run(): Promise<Summary> {
    try {
      await this.#migrate();
      return this.#summary(null);
    } catch (cause) {
      // What broke first is the reason; what follows from it is not.
      const error = this.#abort.signal.aborted ? (this.#abort.signal.reason as AbdmError) : asAbdmError(cause);
      this.#fail(error);
      // Somebody else may be about to run it: nothing is taken away, and nobody here may.
      if (this.#isInDoubt) return this.#summary(error);
      // The destination first: it would find frames missing otherwise, and take that for the reason.
      await Promise.race([this.#link?.fail(error), sleep(FAIL_MS)]);
      await this.#scatter?.drop();
      return this.#summary(error);
    } finally {
      this.#phase = 'done';
      this.#link?.end();
      this.#scatter?.end();
      this.#index?.close();
    }
  }

  async #migrate(): Promise<void> {
    const { to, park, vms, vmKey, intermediates, announcements, replicas = 1, security = OPEN } = this.#options;
    const migration = randomBytes(16).toString('hex');
    const key = vmKey ? migrationSecret(vmKey, migration) : randomBytes(KEY_BYTES);
    const token = to === undefined ? null : randomBytes(16).toString('hex');
    const sealed = isSecured(security);
    const shapes = vms.map(({ name, image: { bytes, pages, regions } }) => {
      return { name, bytes, pages, regions: regions.map((region) => ({ ...region })) };
    });
    if (!this.#direct) {
      const listed = intermediates === 'announced' ? undefined : intermediates;
      this.#index = await NodeIndex.open({
        security,
        ...(listed && { listed }),
        ...(announcements && { announcements }),
      });
    }
    const scatter = await Scatter.open({
      migration,
      security,
      key,
      index: this.#index,
      manifest: { migration, sealed, replicas, vms: shapes },
      parked: park !== undefined,
      leaseMs: park?.leaseMs ?? LEASE_MS,
      token,
      onStored: (frame) => this.#onStored(frame),
      onLost: (frames) => this.#divideAgain(frames),
      onError: (error) => this.#fail(error),
    });
    this.#scatter = scatter;
    this.#framer = await Framer.create({
      key,
      compress: this.#options.compress ?? 'lz4',
      sealed,
      withMeta: !this.#direct && to !== undefined,
      onFree: () => this.#wake(),
    });
    if (to !== undefined) {
      this.#link = new DestinationLink({
        to,
        migration,
        security,
        once: this.#direct,
        signal: this.#abort.signal,
        announcement: () => ({
          mode: 'stop',
          direct: this.#direct,
          key: Buffer.from(key).toString('hex'),
          sealed,
          replicas,
          token: token!,
          vms: shapes,
          nodes: this.#direct ? [] : scatter.mam.members.map(({ address, id }) => ({ address, id })),
          elapsedMs: this.#elapsedMs(),
        }),
        kept: () => (this.#direct ? [] : scatter.ledger.kept()),
        onReady: () => scatter.addDestination(to),
        onForgotten: () => scatter.loseDestination(),
        onOver: (error) => {
          this.#givenUp = true;
          this.#fail(error);
        },
      });
      await this.#link.connect();
    }
    if (!this.#direct) await this.#unlessOver(scatter.ready(this.#abort.signal));
    if (this.#link) await this.#answered(this.#link.announce(), 'say that it is ready');

    this.#phase = 'dividing';
    for (const [vm, { image }] of vms.entries()) await this.#divideImage(vm, image);
    if (!this.#direct) this.#link?.waitNoLonger();
    await this.#finish();
    await this.#confirm();
  }

  /** Until everything is where it should be: the exit. */
  async #finish(): Promise<void> {
    await this.#scatter!.finish(this.#abort.signal, () => {
      this.#committed = true;
    });
    this.#exitTimeMs = this.#elapsedMs();
  }

  /**
   * The destination is told that this was all. Where there are nodes it need not be there to hear it, for it will find everything there; but then what only
   * it has goes there too.
   */
  async #confirm(): Promise<void> {
    if (!this.#link) return;
    const told = this.#link.divided(this.#scatter!.ledger.size);
    const what = 'confirm that it knows where the frames are';
    if (this.#direct) return this.#answered(told, what);
    try {
      await this.#answered(told, what, CONFIRM_MS);
    } catch {
      this.#abort.signal.throwIfAborted();
      if (this.#scatter!.loseDestination()) await this.#finish();
    }
  }

  async #divideImage(vm: number, image: ImageSource): Promise<void> {
    const summary = this.#vms[vm]!;
    const framer = this.#framer;
    const before = { ...framer.counts };
    for (let pfn = 0; pfn < image.pages; pfn += framer.batchPages) {
      await this.#room();
      const pages = Math.min(framer.batchPages, image.pages - pfn);
      image.read(pfn, pages, framer.batch.bytes, 0);
      for (const frame of framer.divide({ vm, base: pfn, pages })) {
        this.#limit.take(frame.bytes.byteLength);
        this.#scatter!.put(frame);
      }
      this.#doneBytes += Math.min(pages * PAGE_BYTES, image.bytes - pfn * PAGE_BYTES);
      for (const kind of ['zeroPages', 'duplicatePages', 'compressedPages', 'normalPages'] as const) {
        summary[kind] = framer.counts[kind] - before[kind];
      }
      // Acknowledgements and the destination's word are heard between batches.
      await setImmediate();
    }
    if (image.pages === 0) summary.exitTimeMs = this.#elapsedMs();
  }

  /** Frames that nobody has any more: the images still do. */
  #divideAgain(frames: readonly Kept[]): void {
    this.#again = this.#again
      .then(async () => {
        for (const frame of frames) {
          await this.#room();
          this.#options.vms[frame.vm]!.image.read(frame.base, frame.pages, this.#framer.againBatch.bytes, 0);
          const again = this.#framer.divideAgain(frame);
          this.#limit.take(again.bytes.byteLength);
          this.#scatter!.put(again);
        }
      })
      .catch((error) => this.#fail(asAbdmError(error)));
  }

  #onStored(frame: Kept): void {
    this.#frameBytes += frame.bytes;
    this.#link?.record(frame);
    this.#vms[frame.vm]!.exitTimeMs = this.#elapsedMs();
  }

  /** Until there is memory for another batch, and the rate limit allows it. */
  async #room(): Promise<void> {
    const { signal } = this.#abort;
    for (;;) {
      signal.throwIfAborted();
      const waitMs = this.#limit.waitMs;
      if (waitMs > 0) await sleep(waitMs);
      else if (this.#framer.hasRoom) return;
      else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** The destination's answer; or why it is not waited for any longer. */
  async #answered(answer: Promise<void>, what: string, answerMs = this.#options.answerMs ?? ANSWER_MS): Promise<void> {
    const { to } = this.#options;
    const { signal } = this.#abort;
    // Nobody may be left to hear of it.
    answer.catch(() => {});
    signal.throwIfAborted();
    const given = new AbortController();
    try {
      await Promise.race([
        answer,
        sleep(answerMs, undefined, { signal: AbortSignal.any([signal, given.signal]) }).then(() => {
          throw new AbdmError('PEER_UNREACHABLE', `${to} did not ${what} within ${answerMs} ms`);
        }),
      ]);
    } finally {
      given.abort();
    }
  }

  /** Waits for `work` unless the migration is over first. @throws {AbdmError} what it throws, or why it is over. */
  #unlessOver(work: Promise<void>): Promise<void> {
    const { signal } = this.#abort;
    const over = new Promise<void>((_, reject) => {
      signal.addEventListener('abort', () => reject(signal.reason), { once: true });
    });
    return Promise.race([work, over]);
  }

  /** The nodes were told that all of it is there, and then it broke. */
  get #isInDoubt(): boolean {
    return this.#committed && !this.#givenUp;
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  #fail(error: AbdmError): void {
    if (!this.#abort.signal.aborted) this.#abort.abort(error);
    this.#wake();
  }

  #elapsedMs(): number {
    return performance.now() - this.#started;
  }

  #summary(error: AbdmError | null): Summary {
    const { park, replicas = 1 } = this.#options;
    return {
      type: 'summary',
      role: 'source',
      outcome: error ? (this.#isInDoubt ? 'paused-recoverable' : 'aborted') : 'completed',
      reason: reasonOf(error),
      mode: 'stop',
      direct: this.#direct,
      vms: this.#vms,
      exitTimeMs: error ? null : this.#exitTimeMs,
      totalMigrationTimeMs: null,
      wireBytes: { source: (this.#scatter?.mam.bytesOut ?? 0) + (this.#link?.bytesOut ?? 0), destination: null },
      nodes: this.#scatter?.mam.shares ?? [],
      replicas: this.#direct ? 0 : replicas,
      parked: park !== undefined,
      resent: this.#scatter?.resent ?? 0,
      ...usage(),
    };
  }
}
