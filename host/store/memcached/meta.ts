// What memcached is asked, and answers, of its meta protocol (1.6 or later).
//
//   ms abdm:...:7 264296 T120 ME <block>     ->  add;     HD stored, NS there is one
//   mg abdm:...:7 v                          ->           VA 264296 <block>, EN there is none
//   mg abdm:...:7 T120                       ->  touch;   HD, EN
//   md abdm:...:7 C41                        ->  remove;  HD, NF there is none, EX it was changed
//   stats settings                           ->           STAT evictions off, ..., END

import type { Grammar } from '../pipe.js';

/** A word and the flags behind it; of a value how long it is; of stats what they say. */
export interface Reply {
  readonly word: string;
  readonly bytes: number;
  readonly flags: readonly string[];
  readonly stats: ReadonlyMap<string, string>;
}

/** One for each connection: stats are many lines. */
export function meta(): Grammar<Reply> {
  let stats = new Map<string, string>();
  return (line) => {
    const [word, ...rest] = line.split(' ');
    if (!word || !/^[A-Z_]+$/.test(word)) return null;
    if (word === 'STAT') {
      stats.set(rest[0] ?? '', rest.slice(1).join(' '));
      return stats.size < MAX_STATS ? 'more' : null;
    }
    const reply = { word, bytes: 0, flags: rest, stats };
    stats = new Map();
    if (word !== 'VA') return { reply };
    const bytes = Number(rest[0] || Number.NaN);
    if (!Number.isSafeInteger(bytes) || bytes < 0) return null;
    return { bytes, reply: { ...reply, bytes, flags: rest.slice(1) } };
  };
}

const MAX_STATS = 1_000;

/** What follows this letter, such as 41 of `c41`. */
export function flag({ flags }: Reply, letter: string): number {
  return Number(flags.find((one) => one[0] === letter)?.slice(1) ?? Number.NaN);
}
