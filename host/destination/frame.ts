// What the destination knows of a frame: a few words each, for there may be millions.

import type { Holder } from '../mam/holders.js';

/**
 *   coming  -> known     it is on its way to nodes, or to us; it was never seen
 *   known   -> queued    it is wanted, and somebody can be asked for it
 *   queued  -> asked     and was
 *           -> known     what it has is not wanted any more
 *   asked   -> queued    in vain, but somebody is left
 *           -> known     nobody is left: an orphan, if it is wanted
 *           -> merged
 *   merged  -> queued    once more: a page needs what it held
 *   any but merged -> void    it never comes; its pages do, in later frames
 */
export interface Frame {
  readonly id: number;
  /** Its length, as far as that is known; otherwise 0. */
  bytes: number;
  /** The VM whose pages it has; -1 while that is not known. */
  vm: number;
  /** Its first page. */
  first: number;
  /** Pages that it alone has to bring. As long as nobody has said which pages it has, it may be 1. */
  live: number;
  /** Who may have it, best first. Lists are shared: never changed in place. */
  holders: readonly Holder[];
  state: 'coming' | 'known' | 'queued' | 'asked' | 'merged' | 'void';
  /** Requests for it that are under way. */
  asking: number;
  /** How often who gave something else than the frame; made when it first happens. */
  failures: Map<Holder, number> | null;
  /** Frames that its duplicates waited for when it was merged. */
  waitsFor: readonly number[];
}

const NO_FRAMES: readonly number[] = [];

/** A frame of which nothing is known but that there is one. */
export function newFrame(id: number): Frame {
  return {
    id,
    bytes: 0,
    vm: -1,
    first: 0,
    live: 1,
    holders: [],
    state: 'coming',
    asking: 0,
    failures: null,
    waitsFor: NO_FRAMES,
  };
}
