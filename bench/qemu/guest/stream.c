// A network card, and a media stream over HTTP: 4 MiB of seeded bytes, again and again, at a steady rate, for as long as somebody listens. All of it lies in
// the guest's memory, so that what is heard is what was moved. Bytes: xorshift32 from 2463534242 on, little-endian words (bench/qemu/stream.ts has the same).
//
//   abdm_ip=A         the address, of a network of 24 bits
//   abdm_stream=N     bytes a second; 1000000
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MEDIA = 4 << 20, PORT = 80, STEP_MS = 10 };

static uint8_t *media;
static uint64_t bytesPerS;

static void fail(const char *what) { dprintf(1, "ABDM FAIL: %s\n", what); }

// What the host has put there, in its order.
static void insertModules(void) {
  for (int i = 0;; i++) {
    char path[32];
    snprintf(path, sizeof path, "/module%d", i);
    int file = open(path, O_RDONLY);
    if (file < 0) return;
    if (syscall(SYS_finit_module, file, "", 0) < 0) dprintf(1, "ABDM FAIL: %s: %m\n", path);
    close(file);
  }
}

static void bringUp(const char *address) {
  int any = socket(AF_INET, SOCK_DGRAM, 0);
  struct ifreq request = {.ifr_name = "eth0"};
  struct sockaddr_in *to = (struct sockaddr_in *)&request.ifr_addr;
  to->sin_family = AF_INET;
  inet_pton(AF_INET, address, &to->sin_addr);
  if (ioctl(any, SIOCSIFADDR, &request) < 0) fail("no network card");
  inet_pton(AF_INET, "255.255.255.0", &to->sin_addr);
  ioctl(any, SIOCSIFNETMASK, &request);
  request.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(any, SIOCSIFFLAGS, &request) < 0) fail("the network card does not come up");
  close(any);
}

static void *stream(void *argument) {
  int client = (int)(intptr_t)argument;
  char request[4096];
  if (read(client, request, sizeof request) > 0) {
    dprintf(client, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n\r\n");
    const uint64_t step = bytesPerS * STEP_MS / 1000;
    struct timespec due;
    clock_gettime(CLOCK_MONOTONIC, &due);
    for (uint64_t sent = 0;; ) {
      uint64_t at = sent % MEDIA, bytes = MEDIA - at < step ? MEDIA - at : step;
      ssize_t taken = write(client, media + at, bytes);
      if (taken <= 0) break;
      sent += taken;
      due.tv_nsec += taken * 1000000000 / bytesPerS;
      due.tv_sec += due.tv_nsec / 1000000000;
      due.tv_nsec %= 1000000000;
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
    }
  }
  close(client);
  return NULL;
}

static void *listenForEver(void *argument) {
  int server = (int)(intptr_t)argument;
  for (;;) {
    int client = accept(server, NULL, NULL);
    pthread_t thread;
    if (client >= 0 && pthread_create(&thread, NULL, stream, (void *)(intptr_t)client) == 0) pthread_detach(thread);
  }
  return NULL;
}

void serve(const char *address) {
  const char *rate = getenv("abdm_stream");
  bytesPerS = rate ? strtoull(rate, NULL, 10) : 1000000;
  signal(SIGPIPE, SIG_IGN);
  media = malloc(MEDIA);
  uint32_t x = 2463534242u;
  for (int i = 0; i < MEDIA; i += 4) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    memcpy(media + i, &x, 4);
  }
  insertModules();
  bringUp(address);
  int server = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(PORT)};
  if (bind(server, (struct sockaddr *)&here, sizeof here) < 0 || listen(server, 8) < 0) return fail("cannot listen");
  pthread_t thread;
  pthread_create(&thread, NULL, listenForEver, (void *)(intptr_t)server);
}
