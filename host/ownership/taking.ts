// Who may run a VM, as its destination sees it. The guest here runs only after `run`.
//
//              STATE            RUN, or the nodes have everything
//   waiting ----------> loaded ----------------------------------> running
//      |                  |
//      +------------------+-----> refused       we have told the source that it will never run here

export type TakingState = 'waiting' | 'loaded' | 'running' | 'refused';

export class Taking {
  state: TakingState;

  /** @param hasRun the guest had been started by another destination, before that one ended. */
  constructor(hasRun: boolean) {
    this.state = hasRun ? 'running' : 'waiting';
  }

  /** The guest has its execution state; a source that comes back sends it once more. */
  loaded(): void {
    this.#turn(['waiting', 'loaded'], 'loaded');
  }

  /** Before the guest is started. */
  run(): void {
    this.#turn(['loaded'], 'running');
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
