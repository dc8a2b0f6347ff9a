// What the destination knows of a frame that it needs, or has merged: a few words each, for there may be millions.

import type { Holder } from '../mam/holders.js';

/**
 *   known   -> queued    somebody can be asked for it
 *   queued  -> asked     and was
 *   asked   -> queued    in vain, but somebody is left
 *           -> known     nobody is left: an orphan
 *           -> merged
 *   known   -> lost      nobody will ever have it
 *   merged  -> queued    once more: a page needs what it held
 */
export interface Frame {
  readonly id: number;
  /** Its length, as far as that is known; otherwise 0. */
  bytes: number;
  /** Who may have it, best first. Lists are shared: never changed in place. */
  holders: readonly Holder[];
  state: 'known' | 'queued' | 'asked' | 'merged' | 'lost';
  /** How often who gave something else than the frame; made when it first happens. */
  failures: Map<Holder, number> | null;
}
