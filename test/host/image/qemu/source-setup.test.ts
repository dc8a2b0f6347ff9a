import { describe, expect, it } from 'vitest';
import { decodeSetup, encodeSetup } from '#abdm/host/image/qemu/setup.js';
import { decodeState, encodeState } from '#abdm/host/image/qemu/state.js';
import * as sample from '../../qemu/sample.js';

const UUID = Uint8Array.from({ length: 16 }, (_, i) => i * 17);
const BLOCKS = [
  { name: 'pc.ram', bytes: 2 ** 22, hostPageBytes: 2 ** 21 },
  { name: '/rom@etc/acpi/tables', bytes: 8192, hostPageBytes: 4096 },
];
const REGIONS = BLOCKS.map(({ name, bytes }) => ({ name, bytes }));
const refused = (what: string) => expect.objectContaining({ code: 'PROTOCOL', message: expect.stringContaining(what) });

describe('the setup of a guest', () => {
  it.each([
    { machine: 'pc-i440fx-7.2', targetPageBits: null, uuid: null },
    { machine: 'virt-10.0', targetPageBits: 12, uuid: UUID },
  ])('is what it was: %o', (configuration) => {
    const setup = { configuration, version: '7.2.17', blocks: BLOCKS };
    expect(decodeSetup(encodeSetup(setup), REGIONS)).toEqual(setup);
  });

  it('has a limit', () => {
    const blocks = Array.from({ length: 200 }, (_, i) => ({ ...BLOCKS[0]!, name: `memory-device-${i}` }));
    const configuration = { machine: 'pc', targetPageBits: null, uuid: null };
    const tooMany = expect.objectContaining({ code: 'IMAGE', message: expect.stringContaining('200; give it fewer') });
    expect(() => encodeSetup({ configuration, version: '7.2.17', blocks })).toThrow(tooMany);
  });

  const good = { machine: 'pc', targetPageBits: null, uuid: null, version: '7.2.0', hostPageBytes: {} };
  it.each([
    ['not JSON', '{'],
    ['are allowed', ' '.repeat(4097)],
    ['there is none', undefined],
    ['`machine`', { machine: 5 }],
    ['name of the machine', { machine: '' }],
    ['name of the machine', { machine: 'p\x1b[2J' }],
    ['`targetPageBits`', { targetPageBits: 16 }],
    ['`uuid`', { uuid: undefined }],
    ['UUID', { uuid: '00' }],
    ['name of the version', { version: '7\n' }],
    ['`hostPageBytes`', { hostPageBytes: [] }],
    ['not there', { hostPageBytes: { disk: 2 ** 21 } }],
    ['`pc.ram`', { hostPageBytes: { 'pc.ram': 4096 } }],
    ['in pages of 12288', { hostPageBytes: { 'pc.ram': 12288 } }],
    ['in pages of 8388608', { hostPageBytes: { 'pc.ram': 2 ** 23 } }],
  ])('is refused if no guest has it: %s', (what, change) => {
    const text = typeof change === 'object' ? JSON.stringify({ ...good, ...change }) : change;
    expect(() => decodeSetup(text, REGIONS)).toThrow(refused(what));
  });

  it.each([
    ['0 RAM blocks', []],
    ['1025 RAM blocks', Array.from({ length: 1025 }, (_, i) => ({ name: `${i}`, bytes: 4096 }))],
    ['same name', [REGIONS[0]!, REGIONS[0]!]],
    ['name of a RAM block', [{ name: 'x'.repeat(256), bytes: 4096 }]],
    ['has 4095 bytes', [{ name: 'pc.ram', bytes: 4095 }]],
    ['has 0 bytes', [{ name: 'pc.ram', bytes: 0 }]],
  ])('is refused with regions that are no RAM blocks: %s', (what, regions) => {
    expect(() => decodeSetup(JSON.stringify(good), regions)).toThrow(refused(what));
  });
});

describe('the execution state of a guest', () => {
  const sections = Uint8Array.from(sample.DEVICES);

  it.each([false, true])('is what it was: %s', (wasRunning) => {
    const bytes = encodeState({ wasRunning, sections });
    const state = decodeState(bytes);
    expect(state.wasRunning).toBe(wasRunning);
    expect([...state.sections]).toEqual(sample.DEVICES);
    expect(state.sections.buffer).toBe(bytes.buffer);
  });

  it('lies as it is drawn', () => {
    const head = sample.text('{"wasRunning":true}');
    const drawn = [...sample.u32(head.length), ...head, ...sample.DEVICES];
    expect([...encodeState({ wasRunning: true, sections })]).toEqual(drawn);
  });

  it('is refused if it was cut, or is none', () => {
    const bytes = encodeState({ wasRunning: true, sections });
    for (let length = 0; length < bytes.length; length++) {
      expect(() => decodeState(bytes.subarray(0, length)), `${length}`).toThrow(refused(''));
    }
    expect(() => decodeState(Uint8Array.of(255, 255, 255, 255, 0))).toThrow(refused('head has 4294967295'));
    expect(() => decodeState(encodeState({ wasRunning: true, sections: new Uint8Array(2 ** 26 + 1) }))).toThrow(
      refused('bytes'),
    );
    expect(() => decodeState(Uint8Array.from([...sample.u32(2), ...sample.text('{}'), ...sample.DEVICES]))).toThrow(
      refused('`wasRunning`'),
    );
  });
});
