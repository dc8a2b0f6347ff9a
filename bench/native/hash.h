// The content id in C, for peer.c: assembly/content-id.ts says what it is. NH in four passes with AVX2, SipHash-2-4-128.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define PAGE 4096
#define NH_VECTORS 259

static uint8_t nh_key[NH_VECTORS * 16] __attribute__((aligned(64)));
static uint8_t sip_key[16], tag_key[16];

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIP_ROUND                                   \
  v0 += v1; v2 += v3;                               \
  v1 = ROTL(v1, 13) ^ v0; v3 = ROTL(v3, 16) ^ v2;   \
  v0 = ROTL(v0, 32) + v3; v2 += v1;                 \
  v1 = ROTL(v1, 17) ^ v2; v3 = ROTL(v3, 21) ^ v0;   \
  v2 = ROTL(v2, 32);

static void sip128(const uint8_t *key, const uint8_t *in, size_t bytes, uint8_t *out) {
  uint64_t k0, k1;
  memcpy(&k0, key, 8);
  memcpy(&k1, key + 8, 8);
  uint64_t v0 = k0 ^ 0x736f6d6570736575u, v1 = k1 ^ 0x646f72616e646f6du ^ 0xee;
  uint64_t v2 = k0 ^ 0x6c7967656e657261u, v3 = k1 ^ 0x7465646279746573u;
  for (size_t at = 0;; at += 8) {
    uint64_t m = 0;
    const int last = at + 8 > bytes;
    memcpy(&m, in + at, last ? bytes - at : 8);
    if (last) m |= (uint64_t)bytes << 56;
    v3 ^= m;
    SIP_ROUND SIP_ROUND
    v0 ^= m;
    if (last) break;
  }
  v2 ^= 0xee;
  for (int half = 0; half < 2; half++) {
    SIP_ROUND SIP_ROUND SIP_ROUND SIP_ROUND
    const uint64_t h = v0 ^ v1 ^ v2 ^ v3;
    memcpy(out + 8 * half, &h, 8);
    v1 ^= 0xdd;
  }
}

static void set_key(const uint8_t *key) {
  uint8_t block[16] = {0};
  memcpy(block + 8, "abdm/nh", 8);
  for (uint64_t i = 0; i < NH_VECTORS; i++) {
    memcpy(block, &i, 8);
    sip128(key, block, 16, nh_key + 16 * i);
  }
  memset(block, 0, 8);
  memcpy(block + 8, "abdm/tag", 8);
  sip128(key, block, 16, tag_key);
  memcpy(sip_key, key + 16, 16);
}

/** Products of 4 x 32 bits in `a + ka` with those in `b + kb`; lanes: two groups' vectors side by side. */
static inline __m256i products(__m256i a, __m256i ka, __m256i b, __m256i kb) {
  const __m256i x = _mm256_add_epi32(a, ka), y = _mm256_add_epi32(b, kb);
  const __m256i even = _mm256_mul_epu32(x, y);
  const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32));
  return _mm256_add_epi64(even, odd);
}

/** Two groups of 32 bytes at a time: the first vectors of both in one register, the second ones in another. */
static inline __m256i pair(const uint8_t *at) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)at)),
                                 _mm_loadu_si128((const __m128i *)(at + 32)), 1);
}

static void nh(const uint8_t *page, uint64_t out[4]) {
  __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
  const uint8_t *key = nh_key;
  __m256i k0 = pair(key), k1 = pair(key + 16);
  for (int at = 0; at < PAGE; at += 64, key += 64) {
    const __m256i a = pair(page + at), b = pair(page + at + 16);
    // Vectors 2 | 4 and 3 | 5 of the key; the next round's first two are 4 | 6 and 5 | 7.
    const __m256i k2 = pair(key + 32), k3 = pair(key + 48);
    const __m256i k4 = pair(key + 64);
    sum[0] = _mm256_add_epi64(sum[0], products(a, k0, b, k1));
    sum[1] = _mm256_add_epi64(sum[1], products(a, k1, b, k2));
    sum[2] = _mm256_add_epi64(sum[2], products(a, k2, b, k3));
    sum[3] = _mm256_add_epi64(sum[3], products(a, k3, b, k4));
    k0 = k4;
    if (at + 64 < PAGE) k1 = pair(key + 80);
  }
  for (int pass = 0; pass < 4; pass++) {
    uint64_t lanes[4];
    _mm256_storeu_si256((__m256i *)lanes, sum[pass]);
    out[pass] = lanes[0] + lanes[1] + lanes[2] + lanes[3];
  }
}

static inline void content_id(const uint8_t *page, uint8_t *out) {
  uint64_t sums[4];
  nh(page, sums);
  sip128(sip_key, (const uint8_t *)sums, 32, out);
}
