// Which nodes keep what: weighted rendezvous hashing. Every node gets a score from the key, its seed and its weight, and the best
// scores win. A node's score does not depend on the other nodes, so when one leaves only its keys move, and when one joins only the
// keys that it wins do. With score = -weight / ln(u), u uniform in (0, 1), a node wins in proportion to its weight.
//
// NODES holds 24 bytes a node:
//
//   0                         8                         16                        24
//   +-------------------------+-------------------------+-------------------------+
//   | seed (u64)              | weight (f64)            | score (f64), scratch    |
//   +-------------------------+-------------------------+-------------------------+

import { MAX_NODES, NODES, PICKS } from './layout';

const NODE_BYTES: usize = 24;
const WEIGHT: usize = 8;
const SCORE: usize = 16;

/**
 * Chooses `replicas` different nodes for `key` (an integer, 0 to 2^53) out of the `nodes` (at most 256) entries at NODES; entries
 * whose weight is not above 0 (or no number) are passed over. Their indices go to PICKS as u32, best first, of equals the lower
 * index first. Returns how many were chosen.
 */
export function place(key: f64, nodes: u32, replicas: u32): u32 {
  if (nodes > MAX_NODES) nodes = MAX_NODES;
  if (replicas > nodes) replicas = nodes;
  if (!replicas) return 0;
  const mixed = mix(<u64>key);
  let picked: u32 = 0;
  for (let i: u32 = 0; i < nodes; i++) {
    const node = NODES + <usize>i * NODE_BYTES;
    const weight = load<f64>(node, WEIGHT);
    if (!(weight > 0)) continue;
    // 52 bits and a half: never 0 and never 1, and exact.
    const u = (<f64>(mix(mixed ^ load<u64>(node)) >> 12) + 0.5) * (1.0 / 4503599627370496.0);
    const score = -weight / Math.log(u);
    store<f64>(node, score, SCORE);
    picked = rank(i, score, picked, replicas);
  }
  return picked;
}

/** Puts node `i` where its score belongs among the `picked` best so far; what is pushed beyond `replicas` falls out. */
function rank(i: u32, score: f64, picked: u32, replicas: u32): u32 {
  let at = picked;
  if (picked === replicas) {
    if (!(score > scoreOf(replicas - 1))) return picked;
    at--;
  } else picked++;
  while (at > 0 && score > scoreOf(at - 1)) {
    store<u32>(PICKS + (at << 2), load<u32>(PICKS + ((at - 1) << 2)));
    at--;
  }
  store<u32>(PICKS + (at << 2), i);
  return picked;
}

function scoreOf(pick: u32): f64 {
  return load<f64>(NODES + <usize>load<u32>(PICKS + ((<usize>pick) << 2)) * NODE_BYTES, SCORE);
}

/**
 * SplitMix64 (Steele, Lea, Flood 2014, with Stafford's variant 13): a bijection of which every output bit depends on every input bit,
 * so that neighbouring keys, and seeds that are small numbers, give unrelated scores.
 */
function mix(x: u64): u64 {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
