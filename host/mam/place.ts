// An address at which a node is, or may be: connects, and connects again when who was there is gone, for as long as anybody wants it. Each that answers is
// a member of its own (member.ts): what was kept by the one before is not counted on any more.

import { AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { FrameKeeper } from './keeper.js';
import { Member } from './member.js';
import type { WindowLimits } from './window.js';

/** Between two attempts to connect. */
const RETRY_MS = 500;

/** Connects to an address; `onState` and `signal` as KeeperOptions has them. */
export type Dial = (address: string, onState: () => void, signal: AbortSignal) => Promise<FrameKeeper>;

export interface PlaceEvents {
  /** A node answers that had not been there. */
  onJoin(member: Member): void;
  /** It is gone, and what it kept. */
  onGone(member: Member): void;
  /** Somebody answers, or nobody does: placement may change. */
  onChange(place: Place): void;
}

export class Place {
  readonly address: string;
  /** Who is there, or was last. */
  member: Member | null = null;
  /** Everybody who has been there. */
  readonly members: Member[] = [];
  /** Why nobody answers; null while somebody does, and before anybody was asked. */
  trouble: AbdmError | null = null;
  readonly #dial: Dial;
  readonly #limits: WindowLimits;
  readonly #events: PlaceEvents;
  readonly #stop = new AbortController();
  readonly #end = new AbortController();
  /** Ends the wait of the moment. */
  #wake: () => void = () => {};

  constructor(address: string, dial: Dial, limits: WindowLimits, events: PlaceEvents) {
    this.address = address;
    this.#dial = dial;
    this.#limits = limits;
    this.#events = events;
    void this.#run();
  }

  get up(): boolean {
    return this.member?.up ?? false;
  }

  get bytesOut(): number {
    return this.members.reduce((sum, { node }) => sum + node.bytesOut, 0);
  }

  get #stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  /** Connects no more; the connection that there is stays. */
  stop(): void {
    this.#stop.abort(new AbdmError('CANCELLED', `${this.address} is not needed any more`));
    this.#wake();
  }

  /** Ends the connection too. Nobody waits for what is still on its way there: it is elsewhere, or of no use. */
  end(): void {
    this.stop();
    this.#end.abort(this.#stop.signal.reason);
    if (!this.member) return;
    const { node, window } = this.member;
    if (window.outstandingBytes > 0) node.abandon();
    else node.end();
  }

  /** Whoever is there, on a new connection if there is none. @throws {AbdmError} if nobody answers. */
  async reach(): Promise<FrameKeeper> {
    return this.up ? this.member!.node : this.#dial(this.address, () => {}, this.#end.signal);
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const member = await this.#connect();
      if (member && !member.gone) await this.#wait(() => undefined);
      else await this.#wait((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  async #connect(): Promise<Member | null> {
    let member: Member | undefined;
    try {
      const onState = () => {
        if (member) this.#onState(member);
      };
      const node = await this.#dial(this.address, onState, this.#stop.signal);
      if (this.#stopped) {
        node.end();
        return null;
      }
      member = new Member(node, this.#limits, () => this.#events.onChange(this));
    } catch (error) {
      if (this.#stopped) return null;
      this.trouble = asAbdmError(error);
      this.#events.onChange(this);
      return null;
    }
    this.trouble = null;
    this.member = member;
    this.members.push(member);
    this.#events.onJoin(member);
    this.#onState(member);
    return member;
  }

  #onState(member: Member): void {
    if (this.#stopped) return;
    this.trouble = member.node.gone?.error ?? null;
    if (member.gone) this.#events.onGone(member);
    this.#events.onChange(this);
    if (member.gone) this.#wake();
  }

  async #wait(start: (resolve: () => void) => NodeJS.Timeout | undefined): Promise<void> {
    if (this.#stopped) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      timer = start(resolve);
    });
    clearTimeout(timer);
  }
}
