// What a destination knows of its migration: at hand, and in PATH.abdm (state.ts). A change lies there before anything follows from it.

import { leaveState, readState, removeState, type State, type VmNote, writeState } from './state.js';

export class Notes {
  readonly #paths: readonly string[];
  #state: State | null = null;

  /** @param paths where it lies: beside each image that has a place for it. */
  constructor(paths: readonly string[]) {
    this.#paths = paths;
  }

  /** Null: it is not known yet which migration it is. */
  get state(): State | null {
    return this.#state;
  }

  /** Some VM runs here, or has run: whatever else happens, it cannot be given back. */
  get hasRun(): boolean {
    return this.#state?.notes.some(({ fate }) => fate === 'running') ?? false;
  }

  /** What an earlier destination of the same images has left. @throws {AbdmError} IMAGE. */
  read(): State | null {
    return readState(this.#paths);
  }

  /** It is this migration. Nothing is written before the first change. */
  begin(state: State): void {
    this.#state = state;
  }

  /** @throws {AbdmError} IMAGE if it cannot be written. */
  change(change: Partial<State>): void {
    const changed = { ...this.#state!, ...change, sequence: this.#state!.sequence + 1 };
    writeState(this.#paths, changed);
    this.#state = changed;
  }

  /** What is known of one VM. @throws {AbdmError} IMAGE. */
  changeVm(vm: number, change: Partial<VmNote>): void {
    const notes = this.#state!.notes.map((note, i) => (i === vm ? { ...note, ...change } : note));
    this.change({ notes });
  }

  /** Leaves it to whoever is started with the same images next. */
  leave(): void {
    leaveState(this.#paths);
  }

  remove(): void {
    removeState(this.#paths);
  }

  /** The first place, for messages. */
  get path(): string {
    return this.#paths[0] ?? '';
  }
}
