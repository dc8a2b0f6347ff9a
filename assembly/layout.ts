// Where everything lies in the engine's one memory.
//
// The host creates the memory at its final size and never grows it: growing detaches every view that a socket is still
// writing from, and truncates that stream without an error. What has a fixed size lies at fixed addresses, below; what is sized at
// creation (deduplication table, page map, slots) is laid out behind it by bindings/memory.ts and passed in as pointers.
//
//   0x00000  unused, so that 0 is never a valid pointer
//   0x00400  RESULT       what divide and merge report                                  8 KiB
//   0x02400  KEYS         NH key 4,144 B | SipHash key 16 B | tag key 16 B              4.5 KiB
//   0x03600  VMS          64 x { u32 first page in the page map, u32 pages }            512 B
//   0x03800  NODES        256 x { u64 seed, f64 weight, f64 score }                     6 KiB
//   0x05000  PICKS        256 x u32, node indices chosen by placement                   1 KiB
//   0x05400  BATCH_PFNS   256 x u32, pfns of a batch relative to its base               1 KiB
//   0x05800  BATCH_IDS    256 x 16 B, content ids of a batch                            4 KiB
//   0x06800  BATCH_REFS   256 x u64, what the table knows of each                       2 KiB
//   0x07000  BATCH_KINDS  256 x u8                                                      256 B
//   0x10000  LZ4_TABLE    the compressor's hash table                                   64 KiB
//   0x20000  LZ4_ROWS     the high-ratio compressor's hash table                       256 KiB
//   0x60000  the compiler's static data (memoryBase in asconfig.json)                   64 KiB
//   0x70000  FIXED_BYTES: what is sized at creation begins here

export const PAGE_BYTES: u32 = 4096;
/** Pages in a frame, at most. */
export const FRAME_PAGES: u32 = 64;
/** Pages in one call of divide, at most. */
export const BATCH_PAGES: u32 = 256;
export const MAX_VMS: u32 = 64;
export const MAX_NODES: u32 = 256;

export const RESULT: usize = 0x400;
export const KEYS: usize = 0x2400;
export const VMS: usize = 0x3600;
export const NODES: usize = 0x3800;
export const PICKS: usize = 0x5000;
export const BATCH_PFNS: usize = 0x5400;
export const BATCH_IDS: usize = 0x5800;
export const BATCH_REFS: usize = 0x6800;
export const BATCH_KINDS: usize = 0x7000;
export const LZ4_TABLE: usize = 0x10000;
export const LZ4_ROWS: usize = 0x20000;
export const FIXED_BYTES: usize = 0x70000;

/** NH key: 256 vectors for the page and three more, by which the four passes are shifted (content-id.ts). */
export const NH_KEY: usize = KEYS;
export const NH_KEY_BYTES: usize = 4144;
/** 16 bytes: finishes content ids. */
export const SIP_KEY: usize = KEYS + 4144;
/** 16 bytes: frame tags. Apart from SIP_KEY, so that neither can stand for the other. */
export const TAG_KEY: usize = KEYS + 4160;
