// The native side of `npm run bench:ratio`: the same jobs on the same pages in C, with liblz4 and xxHash, in a process that takes its own CPU time.
//
// It reads commands from stdin, a line each, and answers each with a line: nanoseconds of CPU time and what came out, as the sides in Node do.
//
//   key HEX | pages FILE | blocks FILE                        set up: secret of the content ids; pages; blocks of the pages, u32 length before each
//   zero | read | memcpy | xxh3 | nh | id | compress | decompress | divide    FIRST PAGES PASS
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include <lz4.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "hash.h"

static LZ4_stream_t lz4;
static uint8_t *pages, *blocks, *stamped, *copy;
static const uint8_t **block_at;
static size_t page_bytes, block_bytes;
static uint8_t out[2 * PAGE] __attribute__((aligned(64)));

static inline int is_zero(const uint8_t *page) {
  const __m256i first = _mm256_loadu_si256((const __m256i *)page);
  if (!_mm256_testz_si256(first, first)) return 0;
  for (int at = 0; at < PAGE; at += 256) {
    __m256i any = _mm256_setzero_si256();
    for (int i = 0; i < 8; i++) any = _mm256_or_si256(any, _mm256_loadu_si256((const __m256i *)(page + at + 32 * i)));
    if (!_mm256_testz_si256(any, any)) return 0;
  }
  return 1;
}

/** Room behind what is written so far: a block that does not fit would leave the window in no known state. */
#define BLOCK_ROOM LZ4_COMPRESSBOUND(PAGE)

/** Through the window of the pages before it, which lie before it; `first` begins a new one. Returns 0 if the block is longer than `most`. */
static inline int compress_page(int first, const uint8_t *page, uint8_t *to, int most) {
  if (first) LZ4_resetStream_fast(&lz4);
  const int bytes = LZ4_compress_fast_continue(&lz4, (const char *)page, (char *)to, PAGE, BLOCK_ROOM, 1);
  return bytes > most ? 0 : bytes;
}

#include "divide.h"

/** Memory such as V8 gives to wasm: anonymous, without a wish for huge pages. */
static void *room(size_t bytes) {
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
  if (at == MAP_FAILED) exit(1);
  return at;
}

static uint8_t *load(const char *path, uint8_t *old, size_t *bytes) {
  if (old) munmap(old, *bytes + 64);
  FILE *file = fopen(path, "rb");
  struct stat status;
  if (!file || fstat(fileno(file), &status)) exit(1);
  *bytes = status.st_size;
  uint8_t *at = room(*bytes + 64);
  if (fread(at, 1, *bytes, file) != *bytes) exit(1);
  fclose(file);
  return at;
}

static void load_pages(const char *path) {
  pages = load(path, pages, &page_bytes);
  free(stamped);
  stamped = malloc(page_bytes / PAGE);
  for (size_t i = 0; i < page_bytes / PAGE; i++) stamped[i] = !is_zero(pages + i * PAGE);
}

static void load_blocks(const char *path) {
  blocks = load(path, blocks, &block_bytes);
  free(block_at);
  block_at = malloc(page_bytes / PAGE * sizeof *block_at);
  const uint8_t *at = blocks;
  for (size_t i = 0; i < page_bytes / PAGE; i++) {
    uint32_t bytes;
    block_at[i] = at;
    memcpy(&bytes, at, 4);
    at += 4 + bytes;
  }
}

static void hex(const char *text, uint8_t *to, int bytes) {
  for (int i = 0; i < bytes; i++) {
    unsigned value;
    if (sscanf(text + 2 * i, "%2x", &value) != 1) exit(1);
    to[i] = value;
  }
}

/** So that what was read is needed. */
static uint64_t read_all(const uint8_t *at, size_t bytes) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  for (size_t i = 0; i < bytes; i += 128) {
    for (int k = 0; k < 4; k++) sum[k] = _mm256_add_epi64(sum[k], _mm256_loadu_si256((const __m256i *)(at + i + 32 * k)));
  }
  const __m256i all = _mm256_add_epi64(_mm256_add_epi64(sum[0], sum[1]), _mm256_add_epi64(sum[2], sum[3]));
  return (uint32_t)_mm256_extract_epi64(all, 0);
}

static uint64_t run(const char *job, long first, long count) {
  const uint8_t *from = pages + first * PAGE, *end = from + count * PAGE;
  uint64_t result = 0;
  uint32_t word;
  if (!strcmp(job, "zero")) {
    for (; from < end; from += PAGE) result += is_zero(from);
  } else if (!strcmp(job, "read")) {
    result = read_all(from, count * PAGE);
  } else if (!strcmp(job, "memcpy")) {
    memcpy(copy, from, count * PAGE);
    result = copy[count * PAGE - 1];
  } else if (!strcmp(job, "xxh3")) {
    for (; from < end; from += PAGE) {
      result = XXH3_64bits(from, PAGE) & 0xffffffff;
      __asm__ volatile("" : : "r"(result));
    }
  } else if (!strcmp(job, "nh")) {
    uint64_t sums[4];
    for (; from < end; from += PAGE) {
      nh(from, sums);
      __asm__ volatile("" : : "m"(sums));
    }
    result = (uint32_t)sums[0];
  } else if (!strcmp(job, "id")) {
    for (; from < end; from += PAGE) content_id(from, out);
    memcpy(&word, out, 4);
    result = word;
  } else if (!strcmp(job, "compress")) {
    for (long i = 0; from < end; from += PAGE, i++) {
      const int bytes = compress_page(i % FRAME_PAGES == 0, from, out, PAGE - 1);
      result += bytes ? bytes : PAGE;
    }
  } else if (!strcmp(job, "decompress")) {
    for (long i = first; i < first + count; i++) {
      memcpy(&word, block_at[i], 4);
      result += LZ4_decompress_safe((const char *)block_at[i] + 8, (char *)out, word - 4, PAGE) == PAGE;
    }
  } else if (!strcmp(job, "divide")) {
    result = divide(pages, first, count);
  } else {
    exit(1);
  }
  return result;
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return time.tv_sec * 1000000000ll + time.tv_nsec;
}

int main(void) {
  if (!__builtin_cpu_supports("avx2")) return 1;
  static char line[4096], word[32], argument[4000];
  LZ4_initStream(&lz4, sizeof lz4);
  table = room(BUCKETS * sizeof *table);
  rooms = room(ROOMS * ROOM_BYTES);
  window = room(FRAME_PAGES * PAGE);
  size_t copy_bytes = 0;
  while (fgets(line, sizeof line, stdin)) {
    long first = 0, count = 0, pass = 0;
    int64_t nanoseconds = 0;
    uint64_t result = 0;
    if (sscanf(line, "%31s %ld %ld %ld", word, &first, &count, &pass) == 4) {
      const int stamps = !strcmp(word, "divide");
      for (long i = first; stamps && i < first + count; i++) {
        if (stamped[i]) put(pages + i * PAGE + PAGE - 8, pass, 4);
      }
      if (!strcmp(word, "memcpy") && copy_bytes < (size_t)count * PAGE) {
        if (copy) munmap(copy, copy_bytes);
        copy = room(copy_bytes = count * PAGE);
      }
      const int64_t before = now();
      result = run(word, first, count);
      nanoseconds = now() - before;
    } else if (sscanf(line, "%31s %3999s", word, argument) == 2) {
      uint8_t key[32];
      if (!strcmp(word, "key")) hex(argument, key, 32), set_key(key);
      else if (!strcmp(word, "pages")) load_pages(argument);
      else if (!strcmp(word, "blocks")) load_blocks(argument);
    }
    printf("%lld %llu\n", (long long)nanoseconds, (unsigned long long)result);
    fflush(stdout);
  }
  return 0;
}
