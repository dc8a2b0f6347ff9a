// The numbers of a QEMU migration stream, and how it lies on the wire, for QEMU 7.2 to 10. Sources: migration/savevm.c (header, sections, commands),
// migration/ram.c (blocks and pages), migration/migration.c (the return path), docs/devel/migration/{main,postcopy}.rst. Numbers are big-endian.
//
//   pre-copy     header | commands | START ram | PART ram ... | END ram | device state | EOF | description
//   post-copy    header | commands | START ram | PART ram ... | RAM_DISCARD ... | PACKAGED | PART ram ... | END ram | EOF
//
//   header         "QEVM" u32 3 | 07 u32 length, machine | 05 u8 length, name, u32 version, what it has ...   (no, one or several subsections)
//   section        01 START: u32 id, u8 length, name, u32 instance, u32 version | 02 PART, 03 END: u32 id;   then what it has, and 7e u32 id
//   device state   04 FULL sections, headed like START. What is in them only the device knows, and so nobody else where they end
//   description    06 u32 length, JSON about the device state
//   command        08 u16 command, u16 length, body
//   PACKAGED       u32 length outside of the command's: so many bytes that are a stream of their own: LISTEN, device state, PING, RUN
//
// In START ram, MEM_SIZE and the blocks; in PART and END, pages; each ends with EOS:
//
//   MEM_SIZE       u64 total | 4, then until their lengths are the total: u8 length, name, u64 length [, u64 page size]
//   page           u64 offset | flags [, u8 length, name unless CONTINUE], then 4096 bytes, or of a page of one byte's copies, that byte
//   EOS            u64 16

/** "QEVM". */
export const MAGIC = 0x5145564d;
export const STREAM_VERSION = 3;
/** What a connection of the capability multifd begins with. */
export const MULTIFD_MAGIC = 0x11223344;

/** What begins with a byte of its own. */
export const Mark = {
  EOF: 0x00,
  START: 0x01,
  PART: 0x02,
  END: 0x03,
  FULL: 0x04,
  SUBSECTION: 0x05,
  DESCRIPTION: 0x06,
  CONFIGURATION: 0x07,
  COMMAND: 0x08,
  FOOTER: 0x7e,
} as const;

export const Command = {
  OPEN_RETURN_PATH: 1,
  PING: 2,
  ADVISE: 3,
  LISTEN: 4,
  RUN: 5,
  RAM_DISCARD: 6,
  PACKAGED: 7,
  ENABLE_COLO: 8,
  RESUME: 9,
  RECV_BITMAP: 10,
  SWITCHOVER_START: 11,
} as const;

export const RamFlag = {
  ZERO: 0x02,
  MEM_SIZE: 0x04,
  PAGE: 0x08,
  EOS: 0x10,
  CONTINUE: 0x20,
  XBZRLE: 0x40,
  HOOK: 0x80,
  COMPRESS: 0x100,
  MULTIFD_FLUSH: 0x200,
} as const;
/** Offsets are whole pages: the flags lie below. */
export const FLAG_MASK = 0xfff;

export const RAM_VERSION = 4;
/** Ranges in one RAM_DISCARD. */
export const MAX_DISCARD_RANGES = 12;
/** The value of the PING in a package: the answer to it says that the device state is loaded. */
export const PACKAGE_PING = 3;

/** QEMU itself has fewer than twenty, and one more for each memory or display device. */
export const MAX_BLOCKS = 1024;
/** As much as the execution state of any guest may have here. A guest with many devices has less than 1 MiB. */
export const MAX_DEVICE_STATE_BYTES = 64 * 1024 * 1024;

/** A RAM block: a range of the guest's memory, or of a device's. A block is known by its number in the list. */
export interface RamBlock {
  readonly name: string;
  readonly bytes: number;
  /** Of the host's memory behind it: 4096, or that of huge pages. */
  readonly hostPageBytes: number;
}

/** What a stream says of the machine. A destination must be one of the same. */
export interface Configuration {
  readonly machine: string;
  /** Of machines that could have pages of another size; else null. */
  readonly targetPageBits: number | null;
  /** 16 bytes, where it was given to the machine; else null. */
  readonly uuid: Uint8Array | null;
}

/** What a guest is besides its memory: the same for pre-copy and post-copy, which differ in what lies around it. */
export interface DeviceState {
  /** FULL sections, one after the other. */
  readonly sections: Uint8Array;
  /** JSON about them; null if there was none: post-copy has none. */
  readonly description: Uint8Array | null;
}
