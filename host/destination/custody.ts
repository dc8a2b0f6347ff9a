// Whose each VM is, as far as its destination knows, and VMs that end alone while the others go on.
//
// A VM is the source's until that has said RUN of its guest, or that it leaves (DIVIDED, or `complete` at the nodes): then it is ours. What was refused
// is the source's for good; that is noted before the source hears of it, so that nobody who comes later takes it from the nodes.

import { type AbdmError, asAbdmError } from '../../bindings/errors.js';
import type { SourceControl } from './control.js';
import type { Guests } from './guests.js';
import type { Notes } from './notes.js';
import type { Session } from './session.js';
import type { Failure } from './verdict.js';

export interface CustodyOptions {
  readonly notes: Notes;
  /** The way to the source, if there is one. */
  control(): SourceControl | null;
  /** The migration is over: who has what is being settled. */
  isOver(): boolean;
  /** All of them have failed, this one last; or it cannot be noted whose they are. */
  onFailed(error: AbdmError): void;
}

export class Custody {
  /** VMs that ended alone. */
  readonly failures = new Map<number, Failure>();
  readonly #options: CustodyOptions;
  #session: Session | null = null;
  #guests: Guests | null = null;

  constructor(options: CustodyOptions) {
    this.#options = options;
  }

  /** The images are open, and guests may arrive. */
  opened(session: Session, guests: Guests): void {
    this.#session = session;
    this.#guests = guests;
  }

  /** The source has left it to us, or it runs here: it is ours to bring to an end. */
  isOurs(vm: number): boolean {
    const { frames, notes } = this.#options.notes.state!;
    const { fate } = notes[vm]!;
    if (fate !== 'open') return fate !== 'refused';
    return frames !== null || (this.#guests?.of(vm)?.isOurs ?? false);
  }

  /** Some are. */
  get haveOurs(): boolean {
    return this.#options.notes.state?.vms.some((_, vm) => this.isOurs(vm)) ?? false;
  }

  /** This VM is over, and the others are not. */
  fail(vm: number, failure: Failure): void {
    if (this.failures.has(vm)) return;
    this.failures.set(vm, failure);
    const { notes, isOver, onFailed } = this.#options;
    if (isOver()) return;
    const { error, what } = failure;
    const isLast = this.failures.size === notes.state!.vms.length;
    try {
      void this.#guests!.of(vm)?.close();
      this.#session!.failVm(vm, error);
      if (what !== 'source') this.giveBack(vm, error);
      else if (!isLast && (this.#guests!.of(vm)?.refuse() ?? true)) notes.changeVm(vm, { fate: 'refused' });
      if (isLast) onFailed(error);
    } catch (cause) {
      // What fills a disk with pages leaves no room for notes either: the first is the reason.
      onFailed(isLast ? error : asAbdmError(cause));
    }
  }

  /** The source is gone, and was not done: what it has not left to us ends here. False, and nothing happens, if that is all of them. */
  failOthers(error: AbdmError): boolean {
    if (!this.haveOurs) return false;
    for (const vm of this.#options.notes.state!.vms.keys())
      if (!this.isOurs(vm)) this.fail(vm, { what: 'source', error });
    return true;
  }

  /** Tells the source, if it is there, that a VM has never run here and never will; not of one that it has left to us. */
  giveBack(vm: number, error: AbdmError): void {
    const control = this.#options.control();
    if (!control?.isReady) return;
    const { notes } = this.#options;
    const { nodes, frames, mode } = notes.state!;
    // In the other modes the nodes have its execution state before it is left to us, or may have.
    const isKept = nodes.length > 0 && mode !== 'post-copy' && mode !== 'hybrid';
    if (notes.state!.notes[vm]!.fate === 'open') {
      // What nobody else keeps, the source keeps until it hears that it runs.
      if (this.isOurs(vm) && (isKept || frames !== null)) return;
      const arrival = this.#guests!.of(vm);
      if (arrival && !arrival.refuse()) return;
      notes.changeVm(vm, { fate: 'refused' });
    }
    if (notes.state!.notes[vm]!.fate === 'refused') control.vmOver(vm, error);
  }

  /** The source is there, and was not there, perhaps, when some of them failed. */
  onReady(): void {
    for (const [vm, { error }] of this.failures) this.giveBack(vm, error);
  }

  /** Which have failed, for people. */
  get texts(): string[] {
    const { state } = this.#options.notes;
    return [...this.failures].map(([vm, { error }]) => `${state!.vms[vm]!.name} is over: ${error.message}`);
  }
}
