// The destination: takes a migration in. It listens, lets one source in, hears what is coming, and merges it (session.ts): frames are fetched from
// the nodes while the source is still dividing (gather.ts), or come straight from the source (frames.ts). Or nobody is listened to: what was
// parked at the nodes is found and claimed (parked.ts). A VM that is a guest runs here as soon as it may (guests.ts).
//
// It is done when it is known how many frames there were, all of them are merged, every page of every image is in place, and
// the images are visible under their names. Then the nodes are told to forget the frames.
//
// Who has a VM decides what becomes of it when the migration breaks (verdict.ts, settle.ts):
//
//   the source has it        until it said DIVIDED, or RUN of a guest, or the nodes say that it has left all with them
//     it gives up, or we do                 aborted: partial images removed, the source told, the nodes told to forget
//     its connection breaks                 it has ten seconds to come back, and the nodes are asked: it left -> the VM is ours; it is still with
//                                           them -> it is waited for; otherwise aborted
//     we give up while it is away           who has it is not known: paused
//   we have it
//     a node is gone, a frame damaged       fetched elsewhere; nobody has it: all else is merged, then aborted, with the lost pages named (exit code 4)
//     nodes do not answer, an image cannot  paused-recoverable: nothing is dropped, PATH.abdm and PATH.partial stay, and the same command goes on
//     be written, we are told to end        from there
//     we are killed                         the same command goes on
//     its guest runs, and the source goes   it has ten seconds to come back; what only it had is lost then, and the guest stays where it is
//     it is there, and says nothing         for thirty seconds, though the guest waits for what it has: likewise
//   In a direct migration nobody else ever has the frames: whoever is lost, it is aborted, but for guests that run.
// One VM of several may fail alone: its source is told, and the others go on.

import { setTimeout as sleep } from 'node:timers/promises';
import { compileEngine } from '../../bindings/engine.js';
import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { LeftOver } from '../image/filesink.js';
import { readState } from '../mam/catalog-reader.js';
import { HEARD_ALL_MS, NodeIndex } from '../mam/index.js';
import type { NodeRef } from '../mam/keeper.js';
import { takeParked } from '../mam/parked.js';
import type { Status, Summary } from '../summary.js';
import { RateLimit } from '../wire/rate.js';
import { OPEN, type Security } from '../wire/security.js';
import type { Announced } from './announcement.js';
import { Claims } from './claims.js';
import { SourceControl } from './control.js';
import { Conversation, type Opened } from './conversation.js';
import { Custody } from './custody.js';
import { type Ending, summaryOf } from './ending.js';
import { checkKinds, Guests } from './guests.js';
import { lostPages } from './lost.js';
import { Notes } from './notes.js';
import type { DestinationOptions } from './options.js';
import { failedBefore, hasRun, openNotes, recognise, resumed } from './resume.js';
import { Session } from './session.js';
import { settle } from './settle.js';
import type { State } from './state.js';
import type { Verdict } from './verdict.js';

export type { DestinationOptions } from './options.js';

const RETURN_MS = 10_000;
/** A source that has nothing more to send says so within this. */
const CONFIRM_MS = 3_000;
const ANSWER_MS = 30_000;
/** How often the source is told how far the merge is. */
const REPORT_MS = 250;
/** A claim is renewed so often: well within the 30 s after which somebody else may have it. */
const RENEW_MS = 10_000;

/** A migration as its destination sees it: `start`, then wait for `done`. */
export class Destination {
  /** Resolves when the migration is over, however it ended. */
  readonly done: Promise<Summary>;
  readonly #options: DestinationOptions;
  readonly #security: Security;
  readonly #limit: RateLimit;
  readonly #notes: Notes;
  #control: SourceControl | null = null;
  #index: NodeIndex | null = null;
  #phase: Status['phase'] = 'waiting';
  #replicas: number | null = null;
  #direct = false;
  /** What becomes of images that an earlier destination has left. */
  #left: LeftOver = 'refuse';
  #opening: Promise<Opened> | null = null;
  #opened: Opened | null = null;
  #startedAt = performance.now();
  /** By VM: from the beginning until its last page was in place. */
  readonly #totalMs: (number | null)[] = [];
  readonly #custody: Custody;
  readonly #conversation: Conversation;
  #verdicts: readonly Verdict[] | null = null;
  readonly #timers: NodeJS.Timeout[] = [];
  /** Aborted when it is over, with why. */
  readonly #over = new AbortController();
  #end!: (ending: Ending) => void;

  private constructor(options: DestinationOptions) {
    this.#options = options;
    this.#security = options.security ?? OPEN;
    this.#limit = new RateLimit(options.rateBytesPerS);
    this.#notes = new Notes(options.images.flatMap(({ statePath }) => (statePath === undefined ? [] : [statePath])));
    this.#custody = new Custody({
      notes: this.#notes,
      control: () => this.#control,
      isOver: () => this.#over.signal.aborted,
      onFailed: (error) => this.#fail(error),
    });
    this.#conversation = new Conversation({
      notes: this.#notes,
      custody: this.#custody,
      returnMs: options.returnMs ?? RETURN_MS,
      answerMs: options.answerMs ?? ANSWER_MS,
      opened: () => this.#opened,
      open: (migration, announced) => this.#openFor(migration, announced),
      isConnected: () => this.#control?.connected ?? false,
      endSource: (error) => void this.#control?.end(error),
      isOver: () => this.#over.signal.aborted,
      onFailed: (error) => this.#fail(error),
      onStuck: (error) => this.#end({ how: 'stuck', error }),
    });
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

  /** The state of some VM is here, or here and at the nodes, and nowhere else. */
  get handedOver(): boolean {
    if (this.#verdicts) return this.#verdicts.some(({ isOurs }) => isOurs);
    return this.#custody.haveOurs;
  }

  /** It is over, and some VM of which that was true did not come through. */
  get hasLost(): boolean {
    return this.#verdicts?.some(({ outcome, isOurs }) => outcome === 'aborted' && isOurs) ?? false;
  }

  /** How far it has come. */
  status(): Status {
    const { session, guests } = this.#opened ?? {};
    const mergedBytes = session?.mergedBytes ?? 0;
    return {
      phase: this.#phase,
      doneBytes: mergedBytes,
      totalBytes: this.#notes.state?.vms.reduce((sum, { bytes }) => sum + bytes, 0) ?? 0,
      wireBytes: session?.frameBytes ?? 0,
      mergedBytes,
      rateBytesPerS: this.#limit.bytesPerS,
      nodes: session?.shares ?? [],
      ...(guests?.status && { guests: guests.status }),
      warnings: [...(session?.warnings ?? []), ...this.#custody.texts],
    };
  }

  /** Bytes of frames a second from now on; null: no limit. */
  setRate(bytesPerS: number | null): void {
    this.#limit.set(bytesPerS);
  }

  /**
   * Ends it: as aborted while the source has the VMs, otherwise as paused-recoverable. If all that is ours is here already, only what is not ours ends: the source, which
   * would not know what has become of the others, is told, and has a moment to say that it leaves.
   */
  cancel(reason = 'cancelled'): void {
    const error = new AbdmError('CANCELLED', reason);
    if (!this.#hasOnlyToHear) return this.#fail(error);
    this.#timers.push(setTimeout(() => this.#fail(error), CONFIRM_MS));
    for (const vm of this.#notes.state!.vms.keys()) {
      if (!this.#custody.isOurs(vm)) this.#custody.fail(vm, { what: 'image', error });
    }
  }

  /** Some VMs are ours, all of their pages are in place, and the source has not said yet that it leaves. */
  get #hasOnlyToHear(): boolean {
    const { state } = this.#notes;
    if (!state || state.frames !== null || !this.#control?.isReady || !this.#custody.haveOurs) return false;
    return lostPages(this.#opened!.session.merger, state.vms, (vm) => this.#custody.isOurs(vm)).length === 0;
  }

  async #begin(): Promise<void> {
    const { listen, parked, announcements } = this.#options;
    if ((listen === undefined) === (parked === undefined)) {
      throw new AbdmError('USAGE', 'a destination either listens for a source, or takes what was parked');
    }
    // A source that comes need not wait for that; what is wrong with it is said then.
    void compileEngine();
    const left = this.#notes.read();
    if (left && left.parked !== (parked !== undefined)) {
      const how = left.parked ? 'a parked VM' : 'a VM whose source comes here';
      throw new AbdmError('USAGE', `${this.#notes.path} is of ${how}: start this as before`);
    }
    // What came straight from a source, with no node beside it, is of no use without it; while the source had the VMs.
    const isStale = left !== null && left.nodes.length === 0 && left.frames === null && !hasRun(left);
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
      if (listen !== undefined)
        this.#control = await SourceControl.listen(listen, security, migration, this.#conversation);
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
    if (left.nodes.length === 0 && !hasRun(left)) {
      this.#notes.begin(left);
      const text = 'an earlier abdm merge was ended before it could say that all of it is here, and nobody else has it';
      throw new AbdmError('FRAME_LOST', `${text}; what it had is in PATH.partial beside the image`);
    }
    this.#direct = left.nodes.length === 0;
    const { session, claims } = await this.#open(left);
    if (left.frames !== null) this.#conversation.handOver(left.frames);
    else this.#conversation.seek();
    if (this.#direct) return;
    session.followsIndex = true;
    if (left.voters.length === 0) await claims.lookUp();
    await claims.claim(this.#notes.hasRun);
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
    const { migration, frames, over } = found;
    const { vms, sealed } = manifest;
    const voters = [...found.voters];
    const began = { mode: null, frames: null, beganAtMs: Date.now(), parked: true, direct: false };
    const state = { sequence: 0, migration, key, token, nodes, voters, vms, notes: openNotes(vms), sealed, ...began };
    const { session } = await this.#open(state);
    session.followsIndex = true;
    this.#conversation.handOver(frames, over);
  }

  /** Opens the images for what the source says that comes, if they are not open for that already. */
  async #openFor(migration: string, announced: Announced): Promise<Opened> {
    const { mode, key, vms, token, nodes, sealed, direct, replicas, elapsedMs } = announced;
    this.#replicas = replicas;
    this.#direct = direct;
    this.#over.signal.throwIfAborted();
    if (this.#opening) return this.#opening;
    this.#startedAt = performance.now() - elapsedMs;
    const began = { mode, frames: null, beganAtMs: Math.round(Date.now() - elapsedMs), parked: false, direct };
    const voters: NodeRef[] = [];
    return this.#open({
      sequence: 0,
      migration,
      key,
      vms,
      notes: openNotes(vms),
      token,
      nodes,
      voters,
      sealed,
      ...began,
    });
  }

  /** Opens the images, and notes what is needed to go on. */
  #open(state: State): Promise<Opened> {
    this.#notes.begin(state);
    this.#opening = this.#openNow(state);
    return this.#opening;
  }

  async #openNow(state: State): Promise<Opened> {
    const { images, onImages, onRunning, answerMs = ANSWER_MS } = this.#options;
    this.#phase = 'preparing';
    onImages?.(state.vms);
    const session = await Session.open({
      ...state,
      targets: images.map((target) => resumed(target, state, this.#left)),
      left: this.#left,
      oneVersion: state.mode === 'stop' || state.mode === 'post-copy',
      limit: this.#limit,
      security: this.#security,
      others: () => this.#announced(),
      stuckMs: answerMs,
      ask: (vm, pfns) => this.#control?.fault(vm, pfns) ?? false,
      onSilent: (error) => this.#conversation.onSilent(error),
      onWhole: (vm) => this.#onWhole(vm),
      onVmFailed: (vm, error) => this.#custody.fail(vm, { what: 'image', error }),
      onEnd: this.#end,
    });
    try {
      this.#over.signal.throwIfAborted();
      checkKinds(state.vms, session);
      this.#notes.change({ notes: recognise(state, session) });
    } catch (error) {
      await session.giveUp();
      await session.close(false);
      throw error;
    }
    const claims = new Claims(this.#notes, session.holders, this.#security);
    const guests = new Guests({
      session,
      notes: this.#notes,
      permit: () => this.#isPermitted(claims),
      readState: (vm) => readState(state.key, session.upHolders, vm),
      answerMs,
      onRunning: (vm) => onRunning?.(state.vms[vm]!.name, performance.timeOrigin + performance.now()),
      onFailed: (vm, error) => this.#custody.fail(vm, { what: guests.of(vm)!.isGone ? 'gone' : 'image', error }),
    });
    this.#opened = { session, guests, claims };
    this.#custody.opened(session, guests);
    session.join(state.nodes);
    this.#phase = 'gathering';
    this.#every(REPORT_MS, () => this.#control?.report(session.mergedBytes));
    if (state.parked) {
      const renew = () => claims.claim(this.#notes.hasRun).catch((error) => this.#fail(asAbdmError(error)));
      this.#every(RENEW_MS, () => void renew());
    }
    for (const [vm, failure] of failedBefore(this.#notes.state!, session)) this.#custody.fail(vm, failure);
    for (const [vm, error] of session.unopened) this.#custody.fail(vm, { what: 'image', error });
    return this.#opened;
  }

  /** Nobody but the source knows of a VM until it says RUN, or the nodes that they have everything; what was parked is for whoever asks first. */
  async #isPermitted(claims: Claims): Promise<boolean> {
    if (!this.#notes.state!.parked || (await claims.claim(true))) return true;
    this.#end({ how: 'stuck', error: unsure() });
    return false;
  }

  #onWhole(vm: number): void {
    this.#totalMs[vm] ??= performance.now() - this.#startedAt;
    this.#opened?.guests.of(vm)?.whole();
  }

  /** Nodes that announce themselves. */
  #announced(): NodeRef[] {
    const nodes = this.#index?.nodes() ?? [];
    return nodes.flatMap(({ id, address, suspect }) => (id === null || suspect ? [] : [{ id, address }]));
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
    const ended = ending.how === 'whole' ? await this.#becomeWhole() : ending;
    await this.#opened?.guests.close();
    const { state } = this.#notes;
    const session = this.#opened?.session ?? null;
    this.#verdicts = await settle(ended, {
      notes: this.#notes,
      session,
      claims: this.#opened?.claims ?? null,
      control: this.#control,
      custody: this.#custody,
    });
    const summary = summaryOf(ended, {
      session,
      vms: state?.vms ?? [],
      verdicts: this.#verdicts,
      totalMs: this.#totalMs,
      mode: state?.mode ?? null,
      direct: this.#direct,
      parked: state?.parked ?? this.#options.parked !== undefined,
      replicas: this.#replicas,
      controlBytes: this.#control?.bytesIn ?? 0,
    });
    await this.#control?.close();
    this.#index?.close();
    this.#phase = 'done';
    return summary;
  }

  /** Every page is in place. They are ours for sure, and guests that waited for that run. */
  async #becomeWhole(): Promise<Ending> {
    this.#phase = 'committing';
    const { guests, claims } = this.#opened!;
    try {
      if (this.#notes.state!.parked && !(await claims.claim(this.#notes.hasRun))) {
        return { how: 'stuck', error: unsure() };
      }
      await guests.allRun((vm) => !this.#custody.failures.has(vm));
      return { how: 'whole' };
    } catch (cause) {
      return { how: 'failed', error: asAbdmError(cause) };
    }
  }
}

function unsure(): AbdmError {
  const text = 'the nodes that decide who gets the VM do not answer: it cannot be made sure that nobody else has it';
  return new AbdmError('PEER_UNREACHABLE', text);
}
