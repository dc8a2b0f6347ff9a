// What the VMs of a migration share: the link, the nodes, the divider, and how it ends.

import type { Framer } from '../mam/framer.js';
import type { Scatter } from '../mam/scatter.js';
import type { Notice } from '../summary.js';
import type { Ahead } from './ahead.js';
import type { Departure } from './departure.js';
import type { DestinationLink } from './link.js';
import type { Pace } from './pace.js';
import type { Turns } from './turns.js';

export interface Gang {
  /** Null: there is no destination, they are parked. */
  readonly link: DestinationLink | null;
  readonly scatter: Scatter;
  readonly framer: Framer;
  readonly ahead: Ahead;
  readonly pace: Pace;
  /** Of those that stand still, to run elsewhere before their pages are there. */
  readonly turns: Turns;
  readonly direct: boolean;
  /** How long the destination may take to answer. */
  readonly answerMs: number;
  /** Aborted: all of it is over. */
  readonly signal: AbortSignal;
  /** There is something to divide. */
  onTodo(): void;
  /** A VM is over, alone; its `error` says why. */
  onOver(departure: Departure): void;
  /** Something that the operator should know. */
  notice(notice: Notice): void;
  elapsedMs(): number;
}
