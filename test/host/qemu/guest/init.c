// The only program of a guest that proves itself: it fills memory with seeded content, then for ever checks each page and writes its next version, and says
// so on the console after each round. A page that is not what was written last is a FAIL; a guest that was started anew says BOOT.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PAGE = 4096, WORDS = PAGE / 8 };

static uint64_t next(uint64_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 7;
  *x ^= *x << 17;
  return *x;
}

// What page `i` holds in its `version`: zeros, one word again and again, something like text, or noise.
static void content(uint64_t *to, uint64_t i, uint64_t version) {
  static const char *const words[] = {"page ", "memory ", "the ", "guest ", "moves ", "and ", "stays ", "what it is\n"};
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull ^ (version + 1) * 0xbf58476d1ce4e5b9ull;
  next(&x);
  switch (i % 4) {
    case 0:
      memset(to, 0, PAGE);
      if (version % 2) to[version % WORDS] = version;
      break;
    case 1:
      for (int k = 0; k < WORDS; k++) to[k] = x;
      break;
    case 2:
      for (char *at = (char *)to, *end = at + PAGE; at < end;) {
        const char *word = words[next(&x) % 8];
        size_t length = strlen(word);
        if (length > (size_t)(end - at)) length = end - at;
        memcpy(at, word, length);
        at += length;
      }
      break;
    default:
      for (int k = 0; k < WORDS; k++) to[k] = next(&x);
  }
}

int main(void) {
  const char *size = getenv("abdm_mb");
  const uint64_t pages = (size ? strtoull(size, NULL, 10) : 16) * 1024 * 1024 / PAGE;
  uint64_t *const memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    puts("ABDM FAIL: no memory");
    for (;;) pause();
  }
  static uint64_t expected[WORDS];
  printf("ABDM BOOT %llu pages\n", (unsigned long long)pages);
  fflush(stdout);
  for (uint64_t i = 0; i < pages; i++) content(memory + i * WORDS, i, 0);
  for (uint64_t version = 0;; version++) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < pages; i++) {
      uint64_t *page = memory + i * WORDS;
      content(expected, i, version);
      wrong += memcmp(page, expected, PAGE) != 0;
      content(page, i, version + 1);
    }
    printf("ABDM ROUND %llu VERIFY %s\n", (unsigned long long)version, wrong ? "FAIL" : "OK");
    fflush(stdout);
  }
}
