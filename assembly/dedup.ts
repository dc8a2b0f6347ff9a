// The deduplication table: where a content that already left can be found. Bounded, set-associative, and never wrong: a full bucket
// forgets its oldest content, which costs a chance to deduplicate and nothing else.
//
// A bucket is 128 bytes, two cache lines, and holds five contents. Large tables miss the cache with every look-up, so the first line
// holds all that is needed to say "unknown" (98.8 % of the time, even in a full bucket) and to answer for the first two ways:
//
//        0                16               32       40       48       56
//        +----------------+----------------+--------+--------+--------+--------+
//   0    | id 0           | id 1           | ref 0  | ref 1  | ref 2  | meta   |
//        +----------------+----------------+--------+--------+--------+--------+
//   64   | id 2           | id 3           | id 4            | ref 3  | ref 4  |
//        +----------------+----------------+-----------------+--------+--------+
//
//   meta, bytes: next victim (0-4) | tag of id 2 | of id 3 | of id 4 | 0 | 0 | 0 | 0
//
// A tag is one byte of the id; the second line is looked at only when one of the three is the tag of the id sought. A reference is
// frameId * 64 + slot; 0 means that the way is empty, for frame ids start at 1. Ids are outputs of a MAC: their bits are the hash.

const BUCKET_SHIFT: usize = 7;
const REF_0: usize = 32;
const REF_1: usize = 40;
const REF_2: usize = 48;
const META: usize = 56;
const REF_3: usize = 112;
const REF_4: usize = 120;

let table: usize = 0;
let mask: usize = 0;

/**
 * Makes the table of `buckets` (a power of two) buckets of 128 bytes at `tablePtr` (a multiple of 128) the engine's. It is empty where its memory is zero: to
 * fill that once more would cost 15 ms where it is new, for the system then has to provide all of it at once.
 */
export function dedupInit(tablePtr: usize, buckets: u32): void {
  table = tablePtr;
  mask = <usize>buckets - 1;
}

/** Empties the table. */
export function dedupClear(): void {
  memory.fill(table, 0, (mask + 1) << BUCKET_SHIFT);
}

/** The reference (frameId * 64 + slot) to the content with the 16-byte id at `idPtr`, or 0 if the table does not know it. */
export function find(idPtr: usize): u64 {
  const at = refOf(bucketOf(idPtr), idPtr);
  return at ? load<u64>(at) : 0;
}

/** Remembers `ref` (not 0) for the 16-byte id at `idPtr`: in place of what is known of the id, else in an empty way, else in the oldest. */
export function insert(idPtr: usize, ref: u64): void {
  const bucket = bucketOf(idPtr);
  const known = refOf(bucket, idPtr);
  if (known) {
    store<u64>(known, ref);
    return;
  }
  // Ways are filled in the order in which they later give way, so one counter finds the empty way and the oldest alike.
  const way = <usize>load<u8>(bucket, META);
  store<u8>(bucket, way === 4 ? 0 : <u8>way + 1, META);
  if (way < 2) {
    v128.store(bucket + (way << 4), v128.load(idPtr));
    store<u64>(bucket + (way << 3), ref, REF_0);
    return;
  }
  store<u8>(bucket + way, tagOf(idPtr), META - 1);
  v128.store(bucket + ((way - 2) << 4), v128.load(idPtr), 64);
  store<u64>(way === 2 ? bucket + REF_2 : bucket + ((way - 3) << 3) + REF_3, ref);
}

/** `find` for JavaScript: exact while frame ids stay below 2^47. -1 if the table does not know the id. */
export function dedupFind(idPtr: usize): f64 {
  const ref = find(idPtr);
  return ref ? <f64>ref : -1;
}

/** `insert` for JavaScript. */
export function dedupInsert(idPtr: usize, frameId: f64, slot: u32): void {
  insert(idPtr, ((<u64>frameId) << 6) | <u64>slot);
}

// The index takes the id's low bits (25 at most: 4 GiB of buckets), the tag the byte at 7.
function bucketOf(idPtr: usize): usize {
  return table + ((<usize>load<u64>(idPtr) & mask) << BUCKET_SHIFT);
}

function tagOf(idPtr: usize): u8 {
  return load<u8>(idPtr, 7);
}

function same(ptr: usize, id: v128): bool {
  return i64x2.all_true(i64x2.eq(v128.load(ptr), id));
}

/** Address of the reference that the bucket holds for the id, or 0. An id of zeros must not be taken for known in an empty way. */
function refOf(bucket: usize, idPtr: usize): usize {
  const id = v128.load(idPtr);
  let at: usize = 0;
  if (same(bucket, id)) at = bucket + REF_0;
  else if (same(bucket + 16, id)) at = bucket + REF_1;
  else {
    // A zero byte in `x` is a tag that matches; the borrow of a lower byte may claim one too many, which costs a look.
    const x = (<u32>(load<u64>(bucket, META) >> 8) & 0xffffff) ^ (<u32>tagOf(idPtr) * 0x010101);
    if (!((x - 0x010101) & ~x & 0x808080)) return 0;
    if (same(bucket + 64, id)) at = bucket + REF_2;
    else if (same(bucket + 80, id)) at = bucket + REF_3;
    else if (same(bucket + 96, id)) at = bucket + REF_4;
    else return 0;
  }
  return load<u64>(at) ? at : 0;
}
