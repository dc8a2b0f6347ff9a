// The destination: takes a migration in. It listens, lets one source in, hears what is coming, and merges it (session.ts): frames are fetched from
// the nodes while the source is still dividing (gather.ts), or come straight from the source (frames.ts). Or nobody is listened to: what was
// parked at the nodes is found and claimed (parked.ts).
//
// It is done when it is known how many frames there were, all of them are merged, every page of every image is in place, and
// the images are visible under their names. Then the nodes are told to forget the frames.
//
// Who has the VM decides what becomes of a migration that breaks:
//
//   the source has it        until it said DIVIDED, or the nodes say that it has left all with them
//     it gives up, or we do                 aborted: partial images removed, the source told, the nodes told to forget
//     its connection breaks                 it has ten seconds to come back, and the nodes are asked: it left -> the VM is ours; it is still with
//                                           them -> it is waited for; otherwise aborted
//     we give up while it is away           who has it is not known: paused
//   we have it
//     a node is gone, a frame damaged       fetched elsewhere; nobody has it: all else is merged, then aborted, with the lost pages named (exit code 4)
//     nodes do not answer, an image cannot  paused-recoverable: nothing is dropped, PATH.abdm and PATH.partial stay, and the same command goes on
//     be written, we are told to end        from there
//     we are killed                         the same command goes on
//   In a direct migration nobody else ever has the frames: whoever is lost, it is aborted.

import { setTimeout as sleep } from 'node:timers/promises';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { LeftOver } from '../image/filesink.js';
import type { FoundMigration } from '../mam/bodies.js';
import { claim, claimError } from '../mam/claim.js';
import { HEARD_ALL_MS, NodeIndex } from '../mam/index.js';
import type { NodeRef } from '../mam/keeper.js';
import { lookUp, together } from '../mam/lookup.js';
import { claimant, takeParked } from '../mam/parked.js';
import type { Status, Summary } from '../summary.js';
import type { Address } from '../wire/address.js';
import { RateLimit } from '../wire/rate.js';
import { OPEN, type Security } from '../wire/security.js';
import type { Announced, AnnouncedVm } from './announcement.js';
import { SourceControl, type SourceEvents } from './control.js';
import { type Ending, summaryOf } from './ending.js';
import type { ImageTarget } from './images.js';
import { Session } from './session.js';
import { leaveState, readState, removeState, type State, writeState } from './state.js';

/** What a destination is started with: either `listen` or `parked`. */
export interface DestinationOptions {
  /** HOST:PORT, port 0 for any free one. */
  listen?: Address | string;
  /** Instead of listening for a source: VMs that were parked, and the secret that they were parked with. */
  parked?: { vmKey: Uint8Array; intermediates: readonly string[] | 'announced' };
  /** Where announcements are heard: HOST:PORT. */
  announcements?: readonly string[];
  images: readonly ImageTarget[];
  /** Bytes of frames a second, at most. */
  rateBytesPerS?: number;
  security?: Security;
  /** How long a source that lost its connection may take to come back. Default 10,000. */
  returnMs?: number;
  /** How long nodes are waited for that do not answer and have what is missing. Default 30,000. */
  answerMs?: number;
  /** Called when it is known what comes. */
  onImages?(images: readonly AnnouncedVm[]): void;
}

const RETURN_MS = 10_000;
const ANSWER_MS = 30_000;
/** How often the source is told how far the merge is. */
const REPORT_MS = 250;
/** How often the nodes are asked what has become of the source. */
const LOOK_MS = 500;
/** A claim is renewed so often: well within the 30 s after which somebody else may have it. */
const RENEW_MS = 10_000;

/** A migration as its destination sees it: `start`, then wait for `done`. */
export class Destination {
  /** Resolves when the migration is over, however it ended. */
  readonly done: Promise<Summary>;
  readonly #options: DestinationOptions;
  readonly #security: Security;
  readonly #limit: RateLimit;
  readonly #statePaths: readonly string[];
  #control: SourceControl | null = null;
  #index: NodeIndex | null = null;
  #phase: Status['phase'] = 'waiting';
  /** What is known of the migration; it lies in PATH.abdm too. */
  #state: State | null = null;
  #replicas: number | null = null;
  #direct = false;
  /** What becomes of images that an earlier destination has left. */
  #left: LeftOver = 'refuse';
  #session: Session | null = null;
  #opening: Promise<void> | null = null;
  #startedAt = performance.now();
  #totalMs: number | null = null;
  #seeking = false;
  /** Somebody else has claimed the VM that was ours. */
  #isElsewhere = false;
  readonly #timers: NodeJS.Timeout[] = [];
  /** Aborted when it is over, with why. */
  readonly #over = new AbortController();
  #end!: (ending: Ending) => void;

  private constructor(options: DestinationOptions) {
    this.#options = options;
    this.#security = options.security ?? OPEN;
    this.#limit = new RateLimit(options.rateBytesPerS);
    this.#statePaths = options.images.flatMap(({ statePath }) => (statePath === undefined ? [] : [statePath]));
    const ended = new Promise<Ending>((resolve) => {
      this.#end = (ending) => {
        this.#over.abort('error' in ending ? ending.error : undefined);
        resolve(ending);
      };
    });
    this.done = ended.then((ending) => this.#finish(ending));
  }

  /**
   * Begins to listen, or to look for what was parked; goes on with what an earlier destination of the same images has left.
   * @throws {AbdmError} USAGE if that is not possible, IMAGE if another process is at it.
   */
  static async start(options: DestinationOptions): Promise<Destination> {
    const destination = new Destination(options);
    await destination.#begin();
    return destination;
  }

  /** HOST:PORT where it listens; null if it does not. */
  get address(): string | null {
    return this.#control?.address ?? null;
  }

  /** The source has left: the VM's state is here and at the nodes, and nowhere else. */
  get handedOver(): boolean {
    return this.#state !== null && this.#state.frames !== null && !this.#isElsewhere;
  }

  /** How far it has come. */
  status(): Status {
    const mergedBytes = this.#session?.mergedBytes ?? 0;
    return {
      phase: this.#phase,
      doneBytes: mergedBytes,
      totalBytes: this.#state?.vms.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0,
      wireBytes: this.#session?.frameBytes ?? 0,
      mergedBytes,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: this.#session?.shares ?? [],
      warnings: this.#session?.warnings ?? [],
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
  }

  /** Ends it: as aborted while the source has the VM, otherwise as paused-recoverable. */
  cancel(reason = 'cancelled'): void {
    this.#fail(new AbdmError('CANCELLED', reason));
  }

  async #begin(): Promise<void> {
    const { listen, parked, announcements } = this.#options;
    if ((listen === undefined) === (parked === undefined)) {
      throw new AbdmError('USAGE', 'a destination either listens for a source, or takes what was parked');
    }
    const left = readState(this.#statePaths);
    if (left && left.parked !== (parked !== undefined)) {
      const how = left.parked ? 'a parked VM' : 'a VM whose source comes here';
      throw new AbdmError('USAGE', `${this.#statePaths[0]} is of ${how}: start this as before`);
    }
    // What came straight from a source, with no node beside it, is of no use without it; while the source had the VM.
    const isStale = left !== null && left.nodes.length === 0 && left.frames === null;
    if (left) this.#left = left.direct && !isStale ? 'keep' : 'replace';
    const security = this.#security;
    if (parked?.intermediates === 'announced') {
      this.#index = await NodeIndex.open({ security, ...(announcements && { announcements }) });
    } else if (announcements && announcements.length > 0) {
      // Others may have what is missing: a help, and no need.
      this.#index = await NodeIndex.open({ security, announcements }).catch(() => null);
    }
    try {
      const migration = left && !isStale ? left.migration : '';
      if (listen !== undefined) this.#control = await SourceControl.listen(listen, security, migration, this.#events());
    } catch (error) {
      this.#index?.close();
      throw error;
    }
    const begun = left && !isStale ? this.#goOn(left) : parked ? this.#takeParked() : Promise.resolve();
    begun.catch((error) => this.#fail(asAbdmError(error)));
  }

  /** Goes on with what an earlier destination has left. */
  async #goOn(left: State): Promise<void> {
    this.#startedAt = performance.now() - (Date.now() - left.beganAtMs);
    if (left.nodes.length === 0) {
      this.#state = left;
      const text = 'an earlier abdm merge was ended before it could say that all of it is here, and nobody else has it';
      throw new AbdmError('FRAME_LOST', `${text}; what it had is in PATH.partial beside the image`);
    }
    await this.#open(left);
    if (left.frames !== null) this.#handOver(left.frames);
    else this.#seekSource();
    this.#session!.followsIndex = true;
    if (left.voters.length === 0) await this.#lookUp();
    await this.#claim();
  }

  async #takeParked(): Promise<void> {
    const { parked, images } = this.#options;
    const { vmKey, intermediates } = parked!;
    // Who announces is known when all have had the time to.
    if (intermediates === 'announced') await sleep(HEARD_ALL_MS);
    const names = images.map(({ name }) => name);
    const addresses = () =>
      intermediates === 'announced' ? this.#index!.nodes().map(({ address }) => address) : intermediates;
    const { signal } = this.#over;
    const taken = await takeParked({ names, vmKey, security: this.#security, addresses, signal });
    const { found, key, manifest, token, nodes } = taken;
    this.#replicas = manifest.replicas;
    const { migration, frames } = found;
    const { vms, sealed } = manifest;
    const voters = [...found.voters];
    const began = { frames: null, beganAtMs: Date.now(), parked: true, direct: false };
    await this.#open({ migration, key, token, nodes, voters, vms, sealed, ...began });
    this.#session!.followsIndex = true;
    this.#handOver(frames);
  }

  #events(): SourceEvents {
    const session = () => this.#session!;
    return {
      onImages: (migration, announced) => this.#onImages(migration, announced),
      onNodes: (nodes) => {
        session().name(nodes, false);
        this.#note({ nodes: unite(this.#state!.nodes, nodes) });
      },
      onRecords: (body) => session().onRecords(body),
      onDivided: (frames) => this.#handOver(frames),
      onFrames: () => {
        if (!this.#session) return null;
        if (!this.#state!.direct) this.#note({ direct: true });
        return this.#session.lane();
      },
      onLost: (error) => this.#onSourceLost(error),
      onError: (error) => this.#fail(error),
    };
  }

  async #onImages(migration: string, announced: Announced): Promise<void> {
    const { key, vms, token, nodes, sealed, direct, replicas, elapsedMs } = announced;
    this.#replicas = replicas;
    this.#direct = direct;
    if (this.#state) {
      // The source has come back: what it says must be what it said before.
      await this.#opening;
      const said = JSON.stringify([[...key], vms, sealed]);
      if (said !== JSON.stringify([[...this.#state.key], this.#state.vms, this.#state.sealed])) {
        throw new AbdmError('PROTOCOL', 'IMAGES: the source has come back with other images');
      }
      this.#note({ nodes: unite(this.#state.nodes, nodes) });
    } else {
      this.#startedAt = performance.now() - elapsedMs;
      const began = { frames: null, beganAtMs: Math.round(Date.now() - elapsedMs), parked: false, direct };
      await this.#open({ migration, key, vms, token, nodes, voters: [], sealed, ...began });
    }
    const session = this.#session!;
    session.name(nodes, true);
    session.hasSource = !this.handedOver;
    session.followsIndex = false;
  }

  /** Opens the images, and notes what is needed to go on. */
  #open(state: State): Promise<void> {
    this.#state = state;
    this.#opening = this.#openNow(state);
    return this.#opening;
  }

  async #openNow(state: State): Promise<void> {
    const { images, onImages, answerMs = ANSWER_MS } = this.#options;
    this.#phase = 'preparing';
    onImages?.(state.vms);
    const session = await Session.open({
      ...state,
      targets: images,
      left: this.#left,
      limit: this.#limit,
      security: this.#security,
      others: () => this.#announced(),
      stuckMs: answerMs,
      onEnd: this.#end,
    });
    if (this.#over.signal.aborted) {
      await session.giveUp();
      await session.close(false);
      throw this.#over.signal.reason;
    }
    this.#session = session;
    session.join(state.nodes);
    this.#note({});
    this.#phase = 'gathering';
    this.#every(REPORT_MS, () => this.#control?.report(session.mergedBytes));
    if (state.parked) this.#every(RENEW_MS, () => void this.#claim().catch((error) => this.#fail(asAbdmError(error))));
  }

  /** All of it is at the nodes, or here: from now on the VM is ours. */
  #handOver(frames: number): void {
    if (!this.handedOver) this.#note({ frames });
    this.#session!.hasSource = false;
    this.#session!.divided(frames);
  }

  #onSourceLost(error: AbdmError): void {
    if (this.handedOver || this.#over.signal.aborted) return;
    if (this.#session) this.#session.hasSource = false;
    // It said why itself; or nobody else has what it has sent.
    if (error.code !== 'PEER_GONE' || (this.#session && this.#direct)) this.#fail(error);
    else this.#seekSource(error);
  }

  /** The source is not there. It may come back; or it has left all with the nodes; or it is gone, and the VM was never ours. */
  #seekSource(why?: AbdmError): void {
    if (this.#seeking) return;
    this.#seeking = true;
    const seeking = this.#seek(why ?? new AbdmError('PEER_GONE', 'the source has not come back'));
    seeking
      .catch((error) => this.#fail(asAbdmError(error)))
      .finally(() => {
        this.#seeking = false;
      });
  }

  async #seek(why: AbdmError): Promise<void> {
    const { returnMs = RETURN_MS, answerMs = ANSWER_MS } = this.#options;
    const lostAt = performance.now();
    for (; !this.#control!.connected && !this.handedOver && !this.#over.signal.aborted; await sleep(LOOK_MS)) {
      const awayMs = performance.now() - lostAt;
      const session = this.#session;
      if (!session) {
        if (awayMs >= returnMs) return this.#fail(why);
        continue;
      }
      session.followsIndex = true;
      const { known, silent } = await this.#lookUp();
      if (this.#control!.connected) return;
      if (known?.complete) return this.#handOver(known.frames);
      if (awayMs < returnMs || known?.sourceConnected) continue;
      if (silent.length === 0) return this.#fail(why);
      if (awayMs < returnMs + answerMs) continue;
      const text = `${why.message}, and nodes that might know do not answer: ${silent.join(', ')}`;
      return this.#end({ how: 'stuck', error: new AbdmError('PEER_UNREACHABLE', text) });
    }
  }

  /**
   * Claims the VMs by our token, or renews that; says whether they are ours for sure.
   * @throws {AbdmError} CLAIMED if somebody else has them.
   */
  async #claim(): Promise<boolean> {
    const { voters, token, vms } = this.#state!;
    const verdict = await claim(
      voters.map((voter) => this.#session!.holders.of(voter)),
      token,
      claimant(),
    );
    if (verdict.other && !verdict.granted) throw claimError(vms.map(({ name }) => name).join(', '), verdict);
    // When no voter is left, nobody else can be granted it either.
    return verdict.granted || verdict.voters === 0;
  }

  /** What the nodes know of this migration, and which of them did not answer. */
  async #lookUp(): Promise<{ known: FoundMigration | null; silent: string[] }> {
    const { migration, vms, voters } = this.#state!;
    const addresses = [...this.#session!.holders].map(({ address }) => address);
    const { found, silent } = await lookUp(addresses, vms[0]!.name, this.#security);
    const known = together(found, migration);
    if (known && voters.length === 0) this.#note({ voters: [...known.voters] });
    return { known, silent };
  }

  /** Nodes that announce themselves. */
  #announced(): NodeRef[] {
    const nodes = this.#index?.nodes() ?? [];
    return nodes.flatMap(({ id, address, suspect }) => (id === null || suspect ? [] : [{ id, address }]));
  }

  #note(change: Partial<State>): void {
    this.#state = { ...this.#state!, ...change };
    writeState(this.#statePaths, this.#state);
  }

  #every(ms: number, run: () => void): void {
    this.#timers.push(setInterval(run, ms));
  }

  #fail(error: AbdmError): void {
    this.#end({ how: 'failed', error });
  }

  async #finish(ending: Ending): Promise<Summary> {
    for (const timer of this.#timers) clearInterval(timer);
    await this.#opening?.catch(() => {});
    const ended = ending.how === 'whole' ? await this.#commit() : ending;
    const outcome = await this.#settle(ended);
    const summary = summaryOf(ended, outcome, {
      session: this.#session,
      vms: this.#state?.vms ?? [],
      direct: this.#direct,
      parked: this.#state?.parked ?? this.#options.parked !== undefined,
      replicas: this.#replicas,
      totalMs: this.#totalMs,
      controlBytes: this.#control?.bytesIn ?? 0,
    });
    await this.#control?.close();
    this.#index?.close();
    this.#phase = 'done';
    return summary;
  }

  async #commit(): Promise<Ending> {
    this.#phase = 'committing';
    try {
      if (this.#state!.parked && !(await this.#claim())) {
        const text =
          'the nodes that decide who gets the VM do not answer: it cannot be made sure that nobody else has it';
        return { how: 'stuck', error: new AbdmError('PEER_UNREACHABLE', text) };
      }
      await this.#session!.commit();
      this.#totalMs = performance.now() - this.#startedAt;
      return { how: 'whole' };
    } catch (cause) {
      return { how: 'failed', error: asAbdmError(cause) };
    }
  }

  /** Leaves everything as it must be, and says how the migration ended. */
  async #settle(ending: Ending): Promise<Summary['outcome']> {
    const session = this.#session;
    const error = ending.how === 'whole' ? null : ending.error;
    const paused = ending.how === 'stuck' || (ending.how === 'failed' && this.#isRecoverable(ending.error));
    if (paused) {
      await session?.leave();
      leaveState(this.#statePaths);
      if (session && this.#state!.parked) await this.#release(session);
      await session?.close(false);
      return 'paused-recoverable';
    }
    // The source first: it would have frames refused otherwise, and take that for the reason.
    await this.#control?.end(error);
    this.#isElsewhere = error?.code === 'CLAIMED';
    const isOurs = !this.#isElsewhere;
    // Nobody else has what was merged.
    if (this.handedOver && error && (session?.mergedBytes ?? 0) > 0) await session!.leave();
    else if (error) await session?.discard();
    if (ending.how === 'failed' && this.handedOver) leaveState(this.#statePaths);
    else if (session) removeState(this.#statePaths);
    await session?.close(isOurs);
    return error ? 'aborted' : 'completed';
  }

  /** The nodes have what is needed to go on, and the source has the VM no more, or may not. */
  #isRecoverable({ code }: AbdmError): boolean {
    if (!this.#state || this.#state.nodes.length === 0 || code === 'CLAIMED') return false;
    if (this.handedOver) return true;
    // While it is away nobody knows, unless it said so itself, or the nodes did.
    return !this.#control?.connected && code !== 'PEER_ABORTED' && code !== 'PEER_GONE';
  }

  /** Whoever is started next need not wait until the claim is stale. */
  async #release(session: Session): Promise<void> {
    const { token } = this.#state!;
    const releases = [...session.holders].map((holder) => holder.release(token, claimant()));
    await Promise.race([Promise.allSettled(releases), sleep(1_000, undefined, { ref: false })]);
  }
}

/** Nodes of both lists, none twice. */
function unite(first: readonly NodeRef[], second: readonly NodeRef[]): NodeRef[] {
  return [...first, ...second.filter(({ id }) => !first.some((node) => node.id === id))];
}
