// Who may run a VM, as its source sees it. The source's guest may go on only where `isOurs`.
//
//             stop            offer            loaded            give             ran
//   running --------> stopped -----> offered --------> accepted --------> given --------> left
//      ^                 |  ^           |                  |                |
//      |     resume      |  +-----------+------------------+                |
//      +-----------------+       the link is lost                           |
//                        ^                                                  |
//                        +--------------------------------------------------+
//                          the other end says that it never ran, and never will
//
// `give` is the point of no return: it is taken before RUN is sent, or the nodes are told that they have everything. From then on only the other end's
// word leads back, or on: not its silence.

/** See above. */
export type GivingState = 'running' | 'stopped' | 'offered' | 'accepted' | 'given' | 'left';

/** What the other end says of its guest when it is reached again. */
export interface Report {
  readonly state: 'waiting' | 'loaded' | 'running';
  /** Which guest that is. */
  readonly guest: string;
}

export class Giving {
  state: GivingState = 'running';
  /** The guest that has taken the execution state. */
  #taker: string | null = null;

  /** The guest here may run, or run again: nobody else can. */
  get isOurs(): boolean {
    return this.state !== 'given' && this.state !== 'left';
  }

  /** The guest stands still. */
  stopped(): void {
    this.#turn(['running'], 'stopped');
  }

  /** It goes on here. */
  resumed(): void {
    this.#turn(['stopped', 'offered', 'accepted'], 'running');
  }

  /** The execution state is on its way. */
  offered(): void {
    this.#turn(['stopped'], 'offered');
  }

  /** LOADED. */
  loaded(guest: string): void {
    this.#turn(['offered'], 'accepted');
    this.#taker = guest;
  }

  /** Before RUN is sent. */
  give(): void {
    this.#turn(['accepted'], 'given');
  }

  /** Before the nodes are told that everything is with them: whoever takes it from there may run it. */
  giveToNodes(): void {
    this.#turn(['stopped', 'offered', 'accepted', 'given'], 'given');
  }

  /** RUNNING. */
  ran(): void {
    this.#turn(['given'], 'left');
  }

  /** The other end has never run it, and never will. */
  refused(): void {
    this.#turn(['offered', 'accepted', 'given'], 'stopped');
    this.#taker = null;
  }

  /** Nobody is connected. */
  linkLost(): void {
    if (this.state === 'offered' || this.state === 'accepted') this.state = 'stopped';
  }

  /** The other end is reached again. Returns whether RUN has to be said once more; another guest's word says nothing of the one that was given the VM. */
  reported({ state, guest }: Report): boolean {
    if (this.state !== 'given' || guest !== this.#taker) return false;
    if (state === 'running') this.state = 'left';
    else if (state === 'loaded') return true;
    else this.refused();
    return false;
  }

  #turn(from: readonly GivingState[], to: GivingState): void {
    if (!from.includes(this.state)) throw new Error(`a VM that is ${this.state} cannot become ${to}`);
    this.state = to;
  }
}
