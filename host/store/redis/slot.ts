// Which of a cluster's 16,384 slots a key belongs to.

export const SLOTS = 16_384;

const CRC16 = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = (crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0);
  return crc;
});

/** Of a key in ASCII without braces, as all of ours are: CRC-16/XMODEM of it. */
export function slotOf(key: string): number {
  let crc = 0;
  for (let i = 0; i < key.length; i++) crc = ((crc << 8) ^ CRC16[(crc >> 8) ^ key.charCodeAt(i)]!) & 0xffff;
  return crc % SLOTS;
}
