// Who may run a VM, as its destination sees it. The guest here runs only after `run`.
//
//              STATE            RUN, or the nodes have everything
//   waiting ----------> loaded ----------------------------------> running
//      |                  | ^                                         |
//      |                  | +-----------------------------------------+   it is gone, and has surely not run
//      +------------------+-----> refused       we have told the source that it will never run here
//
// A destination may die, and the guest live on: what it says of itself is then the truth. And the guest may die: one that was to run may have run, so nobody
// else runs what it had, whoever comes and wherever from. That is why which guest is to run is noted, where those who come later look, before it runs.

import type { Report } from './giving.js';

export type TakingState = 'waiting' | 'loaded' | 'running' | 'refused';

export class Taking {
  state: TakingState;
  /** The guest is known to run, or to have run. */
  hasRun: boolean;

  /**
   * @param hasRun the guest had been started by another destination, before that one ended.
   * @param isLost another guest was, or was to be, and is not there any more.
   */
  constructor(hasRun: boolean, isLost = false) {
    this.hasRun = hasRun;
    if (hasRun) this.state = 'running';
    else this.state = isLost ? 'refused' : 'waiting';
  }

  /** What a source is told that comes, or comes back. It lets go of the VM when it hears that it runs: so not as long as it only should. */
  get report(): Report['state'] {
    if (this.state === 'running') return this.hasRun ? 'running' : 'loaded';
    return this.state === 'loaded' ? 'loaded' : 'waiting';
  }

  /** The guest has its execution state; a source that comes back sends it once more. */
  loaded(): void {
    this.#turn(['waiting', 'loaded'], 'loaded');
  }

  /** Before the guest is started. */
  run(): void {
    this.#turn(['loaded'], 'running');
  }

  /** The guest says that it runs. */
  ran(): void {
    this.#turn(['running'], 'running');
    this.hasRun = true;
  }

  /** The guest is gone, and has surely not run though it was told to. */
  notRun(): void {
    if (this.hasRun) throw new Error('a VM that has run here cannot become loaded');
    this.#turn(['running'], 'loaded');
  }

  /** Before the source is told. */
  refuse(): void {
    this.#turn(['waiting', 'loaded', 'refused'], 'refused');
  }

  #turn(from: readonly TakingState[], to: TakingState): void {
    if (!from.includes(this.state)) throw new Error(`a VM that is ${this.state} here cannot become ${to}`);
    this.state = to;
  }
}
