// The whole divide in C, for peer.c: assembly/divide.ts says what it is. Zero test, content id, deduplication in a table for 1.3 million
// contents, LZ4 through a window across the frame, and a frame as ours with tag and checksum.

#define BUCKETS (1u << 18)
#define WAYS 5
#define FRAME_PAGES 64
#define MAX_BLOCK (PAGE - 128)
#define ROOMS 32
#define ROOM_BYTES (FRAME_PAGES * (PAGE + 32) + 64 + BLOCK_ROOM)

struct bucket {
  uint8_t ids[WAYS][16];
  uint64_t refs[WAYS];
  uint64_t next;
} __attribute__((aligned(128)));

static struct bucket *table;
static uint8_t *rooms, *window;
static uint64_t next_id = 1;

/** Where the content is, or 0, and then remembers `ref` for it. */
static inline uint64_t look_up(const uint8_t *id, uint64_t ref) {
  uint64_t word;
  memcpy(&word, id, 8);
  struct bucket *b = &table[word & (BUCKETS - 1)];
  const __m128i wanted = _mm_loadu_si128((const __m128i *)id);
  for (int way = 0; way < WAYS && b->refs[way]; way++) {
    const __m128i known = _mm_load_si128((const __m128i *)b->ids[way]);
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(known, wanted)) == 0xffff) return b->refs[way];
  }
  _mm_store_si128((__m128i *)b->ids[b->next], wanted);
  b->refs[b->next] = ref;
  b->next = b->next == WAYS - 1 ? 0 : b->next + 1;
  return 0;
}

static inline void put(uint8_t *at, uint64_t value, int bytes) { memcpy(at, &value, bytes); }

/** One frame of up to 64 pages. Returns its length. */
static size_t divide_frame(const uint8_t *page, int count, uint64_t base, uint8_t *frame) {
  uint8_t ids[FRAME_PAGES][16];
  uint64_t refs[FRAME_PAGES];
  uint8_t zero[FRAME_PAGES];
  int named = 0, duplicates = 0, first_sent = count, last_sent = 0, sent = 0;
  const uint64_t id = next_id++;
  for (int i = 0; i < count; i++) {
    zero[i] = is_zero(page + i * PAGE);
    if (!zero[i]) content_id(page + i * PAGE, ids[i]), named++;
  }
  for (int i = 0; i < count; i++) {
    refs[i] = zero[i] ? 0 : look_up(ids[i], id << 6 | i);
    duplicates += refs[i] != 0;
    if (zero[i] || refs[i]) continue;
    if (first_sent == count) first_sent = i;
    last_sent = i;
  }
  const int in_place = last_sent + 1 - first_sent == named - duplicates;
  memset(frame, 0, 40);
  put(frame, 0x0146444241, 5);
  put(frame + 8, id, 8);
  put(frame + 16, base, 8);
  put(frame + 28, count, 2);
  put(frame + 30, named, 2);
  put(frame + 32, duplicates, 2);
  uint8_t *entry = frame + 40, *name = entry + 8 * count, *ref = name + 16 * named, *tag = ref + 8 * duplicates;
  uint8_t *to = tag + 16;
  for (int i = 0; i < count; i++, entry += 8) {
    uint64_t kind = 0, slot = 0, length = 0;
    if (!zero[i]) {
      memcpy(name, ids[i], 16);
      name += 16;
      if (refs[i]) {
        kind = 1, slot = refs[i] & 63;
        put(ref, refs[i] >> 6, 8);
        ref += 8;
      } else {
        const uint8_t *at = page + i * PAGE;
        if (!in_place) at = memcpy(window + sent * PAGE, at, PAGE);
        length = compress_page(sent++ == 0, at, to, MAX_BLOCK);
        kind = 2;
        if (!length) memcpy(to, at, length = PAGE), kind = 3;
        to += length;
      }
    }
    put(entry, (uint64_t)i | kind << 16 | slot << 24 | length << 32, 8);
  }
  put(frame + 24, to - frame + 8, 4);
  sip128(tag_key, frame, tag - frame, tag);
  put(to, XXH3_64bits(frame, to - frame), 8);
  return to - frame + 8;
}

static uint64_t divide(const uint8_t *pages, long first, long count) {
  uint64_t bytes = 0;
  for (long at = first; at < first + count; at += FRAME_PAGES) {
    bytes += divide_frame(pages + at * PAGE, FRAME_PAGES, at, rooms + (next_id % ROOMS) * ROOM_BYTES);
  }
  return bytes;
}
