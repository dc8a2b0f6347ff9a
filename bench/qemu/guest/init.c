// The only program of a guest that proves itself: it fills memory with seeded content and writes to it, knows what each page must hold, and says on its serial
// line what it finds. It is told what to do by the kernel's command line, and later by lines on its serial line.
//
//   abdm_mb=N       megabytes that it fills; 16
//   abdm_noise=1    with noise only; else a quarter each of zeros, one word again and again, something like text, and noise
//   abdm_seed=N     its content is another than that of guests with another seed, but for abdm_common=N of 100 pages, until it writes to them
//   abdm_set=N      it writes to N pages of them, in random order; without it to all of them in rounds, and checks each
//   abdm_rate=N     so many a second; 1000
//   abdm_pulse=N    a thread of the highest priority goes through N other pages for ever, and says how long it was held up
//   abdm_ip=A       it serves a stream at this address: see stream.c
//
//   v               check every page, once             ABDM VERIFY OK
//   r               rounds from now on                 ABDM ROUND 7 VERIFY OK          all pages checked and written to
//   p N             where page N lies                  ABDM PHYSICAL N 123456789       in bytes
//
//   ABDM BOOT 98304 pages          said once: a guest that was started anew says it again
//   ABDM READY                     all is filled, and the stream can be asked for
//   ABDM PULSE 1234 STALL 5678     passes, and the most microseconds between two pages since it was said last, by the guest's own clock, which stands still with the
//   .......                        guest. Between these lines a dot is a sign of life, for clocks outside
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

void serve(const char *address);

enum { PAGE = 4096, WORDS = PAGE / 8, DOT_PASSES = 5, REPORT_PASSES = 200 };

static uint64_t pages, set, rate, pulsePages, seed, common;
static int noise;
static uint64_t *memory;
// The version that each page has, and how many were written: their sum, so that an old page of `versions` is found out too.
static uint32_t *versions;
static uint64_t written;
static volatile int rounds;
// Over a page and its version.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static uint64_t next(uint64_t *x) {
  *x ^= *x << 13;
  *x ^= *x >> 7;
  *x ^= *x << 17;
  return *x;
}

static int64_t nowUs(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

static void sleepMs(int ms) { nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l}, NULL); }

// What page `i` holds in its `version`: zeros, one word again and again, something like text, or noise.
static void content(uint64_t *to, uint64_t i, uint64_t version) {
  static const char *const words[] = {"page ", "memory ", "the ", "guest ", "moves ", "and ", "stays ", "what it is\n"};
  uint64_t own = version == 0 && i % 100 < common ? 0 : seed * 0x94d049bb133111ebull;
  uint64_t x = (i + 1) * 0x9e3779b97f4a7c15ull ^ (version + 1) * 0xbf58476d1ce4e5b9ull ^ own;
  next(&x);
  switch (noise ? 3 : i % 4) {
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

// Whether page `i` is what was written last; `renew` writes its next version.
static int isRight(uint64_t i, int renew) {
  static uint64_t expected[WORDS];
  pthread_mutex_lock(&lock);
  uint64_t *page = memory + i * WORDS;
  content(expected, i, versions[i]);
  int right = memcmp(page, expected, PAGE) == 0;
  if (renew) {
    content(page, i, ++versions[i]);
    written++;
  }
  pthread_mutex_unlock(&lock);
  return right;
}

static const char *verdict(uint64_t wrong) {
  pthread_mutex_lock(&lock);
  uint64_t sum = 0;
  for (uint64_t i = 0; i < pages; i++) sum += versions[i];
  int right = wrong == 0 && sum == written;
  pthread_mutex_unlock(&lock);
  return right ? "OK" : "FAIL";
}

static void *writer(void *unused) {
  uint64_t x = 88172645463325252ull;
  for (uint64_t done = 0, start = nowUs(); !rounds; sleepMs(1)) {
    uint64_t due = (nowUs() - start) * rate / 1000000;
    // What it could not do while it was held up it does not make up for.
    if (due > done + rate / 10) done = due - rate / 10;
    for (; done < due; done++) {
      if (!isRight(next(&x) % set, 1)) dprintf(1, "ABDM WRITER FAIL\n");
    }
  }
  for (uint64_t round = 0;; round++) {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < pages; i++) wrong += !isRight(i, 1);
    dprintf(1, "ABDM ROUND %llu VERIFY %s\n", (unsigned long long)round, verdict(wrong));
  }
  return unused;
}

static void *pulse(void *unused) {
  uint64_t *own = mmap(NULL, pulsePages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  int64_t last = nowUs(), longest = 0;
  for (uint64_t pass = 0;; pass++) {
    for (uint64_t i = 0; i < pulsePages; i++) {
      uint64_t *page = own + i * WORDS;
      if (page[i] != pass) dprintf(1, "ABDM PULSE FAIL\n");
      page[i] = pass + 1;
      int64_t now = nowUs();
      if (now - last > longest) longest = now - last;
      last = now;
    }
    if (pass % REPORT_PASSES == 0) {
      dprintf(1, "\nABDM PULSE %llu STALL %lld\n", (unsigned long long)pass, (long long)longest);
      longest = 0;
    } else if (pass % DOT_PASSES == 0) {
      dprintf(1, ".");
    }
    sleepMs(1);
  }
  return unused;
}

static uint64_t physical(uint64_t i) {
  uint64_t entry = 0;
  int map = open("/proc/self/pagemap", O_RDONLY);
  if (pread(map, &entry, 8, (uintptr_t)(memory + i * WORDS) / PAGE * 8) != 8) entry = 0;
  close(map);
  return (entry & ((1ull << 55) - 1)) * PAGE;
}

static void obey(const char *line) {
  if (line[0] == 'v') {
    uint64_t wrong = 0;
    for (uint64_t i = 0; i < pages; i++) wrong += !isRight(i, 0);
    dprintf(1, "\nABDM VERIFY %s\n", verdict(wrong));
  } else if (line[0] == 'r') {
    rounds = 1;
  } else if (line[0] == 'p') {
    uint64_t i = strtoull(line + 1, NULL, 10) % pages;
    dprintf(1, "\nABDM PHYSICAL %llu %llu\n", (unsigned long long)i, (unsigned long long)physical(i));
  }
}

static void begin(void *(*what)(void *), int priority) {
  pthread_t thread;
  pthread_create(&thread, NULL, what, NULL);
  if (priority) pthread_setschedparam(thread, SCHED_FIFO, &(struct sched_param){.sched_priority = priority});
}

static uint64_t number(const char *name, uint64_t otherwise) {
  const char *value = getenv(name);
  return value ? strtoull(value, NULL, 10) : otherwise;
}

int main(void) {
  mkdir("/proc", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  struct termios line;
  tcgetattr(0, &line);
  line.c_lflag &= ~ECHO;
  tcsetattr(0, TCSANOW, &line);

  pages = number("abdm_mb", 16) * 1024 * 1024 / PAGE;
  set = number("abdm_set", 0);
  rate = number("abdm_rate", 1000);
  pulsePages = number("abdm_pulse", 0);
  noise = number("abdm_noise", 0);
  seed = number("abdm_seed", 0);
  common = number("abdm_common", 0);
  rounds = set == 0;
  memory = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  versions = calloc(pages, sizeof *versions);
  if (memory == MAP_FAILED || !versions) {
    dprintf(1, "ABDM FAIL: no memory\n");
    for (;;) pause();
  }
  dprintf(1, "ABDM BOOT %llu pages\n", (unsigned long long)pages);
  for (uint64_t i = 0; i < pages; i++) content(memory + i * WORDS, i, 0);
  if (getenv("abdm_ip")) serve(getenv("abdm_ip"));
  dprintf(1, "ABDM READY\n");
  begin(writer, 0);
  if (pulsePages) begin(pulse, 50);
  for (;;) {
    char command[64];
    ssize_t bytes = read(0, command, sizeof command - 1);
    if (bytes <= 0) pause();
    command[bytes > 0 ? bytes : 0] = 0;
    obey(command);
  }
}
