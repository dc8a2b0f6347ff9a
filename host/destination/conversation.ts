// What follows from what the source says, and from its silence. Who listens to it is control.ts.
//
//   all of it is at the nodes, or here     what was not ours before is now
//   it is gone, and was not done           VMs that are ours go on with what there is; the others it has, or had
//   it is there, and does not answer       the same, and it is told

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { NodeRef } from '../mam/keeper.js';
import type { Report } from '../ownership/giving.js';
import type { Announced } from './announcement.js';
import type { Claims } from './claims.js';
import type { SourceEvents } from './control.js';
import type { Custody } from './custody.js';
import type { FrameLane } from './frames.js';
import type { Guests } from './guests.js';
import type { Notes } from './notes.js';
import { seekSource } from './seek.js';
import type { Session } from './session.js';

/** A migration whose images are open. */
export interface Opened {
  readonly session: Session;
  readonly guests: Guests;
  readonly claims: Claims;
}

export interface ConversationOptions {
  readonly notes: Notes;
  readonly custody: Custody;
  /** How long a source that lost its connection may take to come back. */
  readonly returnMs: number;
  /** How long nodes are waited for that do not answer. */
  readonly answerMs: number;
  /** Null while the images are not open. */
  opened(): Opened | null;
  /** Opens the images; said again, those are it that are open, or being opened. */
  open(migration: string, announced: Announced): Promise<Opened>;
  isConnected(): boolean;
  /** Tells the source, which is connected, that it is over. */
  endSource(error: AbdmError): void;
  isOver(): boolean;
  onFailed(error: AbdmError): void;
  /** Nobody can say who has the VMs. */
  onStuck(error: AbdmError): void;
}

export class Conversation implements SourceEvents {
  readonly #options: ConversationOptions;
  #seeking = false;
  /** The source sends everything itself: there are no nodes. */
  #direct = false;

  constructor(options: ConversationOptions) {
    this.#options = options;
  }

  async onImages(migration: string, announced: Announced): Promise<readonly (Report | null)[]> {
    const { notes, open } = this.#options;
    const { key, vms, nodes, sealed, direct } = announced;
    this.#direct = direct;
    const { session, guests } = await open(migration, announced);
    const said = notes.state!;
    // A source that has come back says what it said before.
    if (JSON.stringify([[...key], vms, sealed]) !== JSON.stringify([[...said.key], said.vms, said.sealed])) {
      throw new AbdmError('PROTOCOL', 'IMAGES: the source has come back with other images');
    }
    this.#join(nodes);
    session.name(nodes, true);
    session.hasSource = said.frames === null;
    session.followsIndex = false;
    return guests.reports;
  }

  onReady(): void {
    this.#options.custody.onReady();
  }

  onNodes(nodes: readonly NodeRef[]): void {
    this.#session.name(nodes, false);
    this.#join(nodes);
  }

  onRecords(body: Uint8Array): void {
    this.#session.onRecords(body);
  }

  onDiscard(body: Uint8Array): void {
    this.#session.onDiscard(body);
  }

  // Who has a VM is settled when it is over: nothing that comes then changes it.
  onState(body: Uint8Array): ReturnType<SourceEvents['onState']> {
    return this.#options.isOver() ? null : this.#guests.take(body);
  }

  onRun(vm: number): Promise<void> {
    return this.#options.isOver() ? new Promise(() => {}) : this.#guests.run(vm);
  }

  onVmOver(vm: number, error: AbdmError): void {
    const { notes, custody } = this.#options;
    if (vm >= notes.state!.vms.length) throw new AbdmError('PROTOCOL', `VM_OVER: there is no VM ${vm}`);
    custody.fail(vm, { what: 'source', error });
  }

  onDivided(frames: number): void {
    const { notes, custody } = this.#options;
    const { vms, nodes } = notes.state!;
    const early = vms.find((_, vm) => this.#guests.of(vm)?.isOurs === false && !custody.failures.has(vm));
    if (nodes.length === 0 && early) {
      throw new AbdmError('PROTOCOL', `DIVIDED: the source leaves, and has not said that ${early.name} may run`);
    }
    this.handOver(frames);
  }

  onFrames(isUrgent: boolean): FrameLane | null {
    const { notes, opened } = this.#options;
    if (!opened()) return null;
    if (!notes.state!.direct) notes.change({ direct: true });
    return this.#session.lane(isUrgent);
  }

  onLost(error: AbdmError): void {
    const { notes, custody, isOver, opened } = this.#options;
    if (notes.state?.frames != null || isOver()) return;
    const session = opened()?.session;
    if (session) session.hasSource = false;
    // It said why itself; or nobody else has what it has sent.
    const isFinal = error.code === 'PEER_ABORTED' || (error.code !== 'PEER_GONE' && !custody.haveOurs);
    if (isFinal || (session && this.#direct && !custody.haveOurs)) this.#onGone(error);
    else this.seek(error);
  }

  /** It is connected, and does not give what guests here wait for: nobody waits for it any more. */
  onSilent(error: AbdmError): void {
    this.#options.endSource(error);
    this.#onGone(error);
  }

  onError(error: AbdmError): void {
    this.#options.onFailed(error);
  }

  /** All of it is at the nodes, or here, in so many frames; but of those VMs that are named, which have stayed where they were. */
  handOver(frames: number, over: readonly string[] = []): void {
    const { notes, custody } = this.#options;
    for (const [vm, { name }] of notes.state!.vms.entries()) {
      if (!over.includes(name)) continue;
      const text = `${name} did not leave its source with the others: it is still there`;
      custody.fail(vm, { what: 'source', error: new AbdmError('PEER_ABORTED', text) });
    }
    if (notes.state!.frames === null) notes.change({ frames });
    this.#session.hasSource = false;
    this.#guests.takeOver((vm) => !custody.failures.has(vm));
    this.#session.divided(frames);
  }

  /** The source is not there. It may come back; or it has left all with the nodes; or it is gone. */
  seek(why = new AbdmError('PEER_GONE', 'the source has not come back')): void {
    if (this.#seeking) return;
    this.#seeking = true;
    this.#seek(why)
      .catch((error) => this.#options.onFailed(asAbdmError(error)))
      .finally(() => {
        this.#seeking = false;
      });
  }

  async #seek(why: AbdmError): Promise<void> {
    const { notes, opened, isConnected, isOver, returnMs, answerMs, onStuck } = this.#options;
    const found = await seekSource({
      isOver: () => isConnected() || notes.state?.frames != null || isOver(),
      lookUp: () => {
        const now = opened();
        if (!now) return null;
        now.session.followsIndex = true;
        return now.claims.lookUp();
      },
      returnMs,
      answerMs,
    });
    if (found.how === 'left') this.handOver(found.frames, found.over);
    else if (found.how === 'gone') this.#onGone(why);
    else if (found.how === 'unknown') {
      const text = `${why.message}, and nodes that might know do not answer: ${found.silent.join(', ')}`;
      onStuck(new AbdmError('PEER_UNREACHABLE', text));
    }
  }

  #onGone(why: AbdmError): void {
    const { custody, onFailed } = this.#options;
    if (custody.failOthers(why)) this.#session.forsaken();
    else onFailed(why);
  }

  #join(nodes: readonly NodeRef[]): void {
    const { notes } = this.#options;
    const known = notes.state!.nodes;
    const more = nodes.filter(({ id }) => !known.some((node) => node.id === id));
    if (more.length > 0) notes.change({ nodes: [...known, ...more] });
  }

  get #session(): Session {
    return this.#options.opened()!.session;
  }

  get #guests(): Guests {
    return this.#options.opened()!.guests;
  }
}
