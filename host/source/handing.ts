// Hands a guest over to the destination, on whatever link there is: what is said of it, and what the answers mean. Who may run it at any moment is in `giving`
// (ownership/giving.ts).
//
//   source                                            destination
//   RECORDS (coming), DISCARD, STATE         ->       when it stands still, and again whenever a link is made
//                                            <-       LOADED
//   RUN                                      ->       as soon as it may; once more, if a link that is made anew says that it was not heard
//                                            <-       RUNNING

import { AbdmError } from '../../bindings/errors.js';
import { Giving, type Report } from '../ownership/giving.js';
import type { DestinationLink } from './link.js';
import type { Outgoing } from './outgoing.js';

export interface HandingOptions {
  readonly vm: number;
  readonly name: string;
  readonly outgoing: Outgoing;
  /** Null: there is no destination. */
  link(): DestinationLink | null;
  /** The id of the frame that is made next. */
  nextFrame(): number;
  /** It does not leave any more. */
  isOver(): boolean;
  /** It does not leave any more from now on. */
  onFailed(error: AbdmError): void;
  /** It runs there. */
  onRan(): void;
  /** Anything may be as somebody waits for it to be. */
  onChange(): void;
}

export class Handing {
  readonly giving = new Giving();
  /** Its execution state, since it stands still. */
  state: Uint8Array | null = null;
  readonly #options: HandingOptions;
  /** Nothing but LOADED is missing. */
  #mayRun = false;

  constructor(options: HandingOptions) {
    this.#options = options;
  }

  /** Tells the destination, if there is one, of a guest that stands still. */
  offer(): void {
    const { vm, outgoing, nextFrame } = this.#options;
    const link = this.#options.link();
    if (!link?.linked || !outgoing.isStill) return;
    const isNew = this.giving.state === 'stopped';
    const coming = outgoing.coming();
    link.handOver({ vm, coming, unsent: outgoing.unsent, floor: nextFrame(), state: isNew ? this.state : null });
    if (isNew) this.giving.offered();
  }

  /** From now on it may run there as soon as it is loaded. */
  mayRun(): void {
    this.#mayRun = true;
    this.#give();
  }

  /** The destination is there, again perhaps, and says how its guest stands; null: it has none. */
  onLinked(report: Report | null): void {
    const { vm, name, isOver, onFailed, onRan, onChange } = this.#options;
    if (isOver()) return;
    if (report === null) {
      const text = `${name} is a guest that is to run at the destination, which has none that waits for it`;
      return onFailed(new AbdmError('USAGE', text));
    }
    if (report.state === 'running' && this.giving.isOurs) return onFailed(this.#runsTwice());
    const again = this.giving.reported(report);
    if (this.giving.state === 'left') onRan();
    this.offer();
    // Said of one that runs there: it may have been begun by another destination, which knew what this one has just been told.
    if (again || (report.state === 'running' && this.giving.state === 'left')) this.#options.link()!.run(vm);
    onChange();
  }

  onLinkLost(): void {
    this.giving.linkLost();
    this.#options.onChange();
  }

  /** LOADED. */
  onLoaded(guest: string): void {
    this.giving.loaded(guest);
    if (this.#mayRun) this.#give();
    this.#options.onChange();
  }

  /** RUNNING. @throws {AbdmError} PROTOCOL if that cannot be. */
  onRunning(): void {
    if (this.giving.isOurs) throw this.#runsTwice();
    this.giving.ran();
    if (this.giving.state === 'left') this.#options.onRan();
    this.#options.onChange();
  }

  /** VM_OVER. */
  onOver(error: AbdmError): void {
    this.giving.refused();
    this.#options.onFailed(error);
  }

  #give(): void {
    const { vm, isOver } = this.#options;
    // It may be over, or go on here, or the nodes were told that it is theirs.
    if (this.giving.state !== 'accepted' || isOver()) return;
    this.giving.give();
    this.#options.link()!.run(vm);
  }

  #runsTwice(): AbdmError {
    return new AbdmError('PROTOCOL', `the destination runs ${this.#options.name}, which is still here`);
  }
}
