// Who may run a VM, as its source sees it. The source's guest may go on only where `isOurs`.
//
//             stop            offer            loaded            give             ran
//   running --------> stopped -----> offered --------> accepted --------> given --------> left
//      ^                 |  ^           |                  |                |
//      |     resume      |  +-----------+------------------+                |
//      +-----------------+     the link is lost, or refused                 |
//                        ^                                                  |
//                        +--------------------------------------------------+
//                          the other end says that it never ran, and never will
//
// `give` is the point of no return: it is taken before RUN is sent, or the nodes are told that they have everything. From then on only the word of the
// guest that it was given to leads back, or on: not silence, and not another guest's word. Once it is at the nodes nobody's word leads back, for whoever comes may
// take it from there.
//
// What we do ourselves (stopped, resumed, offered, give, giveToNodes) throws where it must not be done. What the other end says (loaded, ran, refused,
// reported) is passed over where it says nothing any more: it may have been on its way for long.

/** See above. */
export type GivingState = 'running' | 'stopped' | 'offered' | 'accepted' | 'given' | 'left';

/** What the other end says of its guest when it is reached, or reached again. */
export interface Report {
  readonly state: 'waiting' | 'loaded' | 'running';
  /** Which guest that is. */
  readonly guest: string;
}

export class Giving {
  state: GivingState = 'running';
  /** The guest that has taken the execution state. */
  taker: string | null = null;
  /** The guest at the other end of the link, as far as it is known. */
  peer: string | null = null;
  /** Execution states that were sent over the link, and that nothing was said of yet. */
  unanswered = 0;
  /** Given to whoever takes it from the nodes. */
  atNodes = false;

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
    this.unanswered++;
  }

  /** LOADED. Only of the last execution state: it may have been offered before, and have gone on here since. */
  loaded(guest: string): void {
    if (this.unanswered === 0 || --this.unanswered > 0 || this.state !== 'offered') return;
    this.state = 'accepted';
    this.taker = guest;
    this.peer = guest;
  }

  /** Before RUN is sent. */
  give(): void {
    this.#turn(['accepted'], 'given');
  }

  /** Before the nodes are told that everything is with them: whoever takes it from there may run it. */
  giveToNodes(): void {
    // Who took an execution state that is not the last one must not be told to run.
    if (this.state === 'stopped' || this.state === 'offered') this.taker = null;
    this.#turn(['stopped', 'offered', 'accepted', 'given'], 'given');
    this.atNodes = true;
  }

  /** RUNNING. */
  ran(): void {
    if (this.state === 'given' && (this.atNodes || this.peer === this.taker)) this.state = 'left';
  }

  /** VM_OVER: the other end has never run it, and never will. */
  refused(): void {
    const isTaker = this.state === 'given' && this.peer === this.taker && !this.atNodes;
    if (this.state === 'offered' || this.state === 'accepted' || isTaker) this.state = 'stopped';
  }

  /** Nobody is connected. */
  linkLost(): void {
    if (this.state === 'offered' || this.state === 'accepted') this.state = 'stopped';
    this.peer = null;
    this.unanswered = 0;
  }

  /** The other end is reached: said at the beginning of every link. Returns whether RUN has to be said, once more. */
  reported({ state, guest }: Report): boolean {
    this.peer = guest;
    if (state === 'running') this.ran();
    else if (this.state === 'given' && guest === this.taker) {
      if (state === 'loaded') return true;
      this.refused();
    }
    return false;
  }

  #turn(from: readonly GivingState[], to: GivingState): void {
    if (!from.includes(this.state)) throw new Error(`a VM that is ${this.state} cannot become ${to}`);
    this.state = to;
  }
}
