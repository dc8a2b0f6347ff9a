// Streams of a real QEMU: understood, written again for another one that then runs, and damaged.
import { describe, expect, it } from 'vitest';
import { migrationState, runState, setCapabilities } from '#abdm/host/qemu/monitor.js';
import { scale } from '../../engine.js';
import { Drained, digestOf, parse, Relay } from './events.js';
import { tryMutations } from './mutations.js';
import { arriveAt, drain, needsQemu, record, startQemu, until } from './qemu.js';
import { POST_COPY, PRE_COPY } from './sample.js';

const NAMES = { false: 'pre-copy', true: 'post-copy' };
const WAYS = [false, true].map((postCopy) => ({ way: NAMES[`${postCopy}`], postCopy }));
const BOTH_WAYS = WAYS.flatMap(({ postCopy }) =>
  WAYS.map(({ way, postCopy: to }) => ({ from: NAMES[`${postCopy}`], way, postCopy, to })),
);

const DEVICES = ['e1000', 'virtio-net-pci', 'virtio-rng-pci', 'virtio-balloon-pci', 'qemu-xhci', 'virtio-gpu-pci'];

const recorded = new Map<boolean, Promise<Buffer>>();
/** Recorded once. */
function streamOf(postCopy: boolean): Promise<Buffer> {
  const stream = recorded.get(postCopy) ?? record(postCopy);
  recorded.set(postCopy, stream);
  return stream;
}

describe('a stream of a real QEMU', () => {
  it.for(WAYS)('is understood: $way', async ({ postCopy }, { skip }) => {
    needsQemu(skip);
    const stream = await streamOf(postCopy);
    const said = parse(stream, new Drained());
    expect(said.configuration!.machine).toMatch(/^pc-i440fx-/);
    expect(said.blocks).toContainEqual({ name: 'pc.ram', bytes: 4 * 1024 * 1024, hostPageBytes: 4096 });
    expect(said.postCopy).toBe(postCopy);
    expect(said.state!.description === null).toBe(postCopy);
    // All pages of all blocks have come.
    for (const [block, { bytes }] of said.blocks.entries()) expect(said.pages[block]!.size).toBe(bytes / 4096);
    const whole = digestOf(stream);
    for (const size of [1, 1000, 4104, 65536]) expect(digestOf(stream, () => size)).toBe(whole);
    expect(digestOf(parse(stream, new Relay()).bytes)).toBe(whole);
  });

  it.for(WAYS)('is written again as it came, and the guest runs: $way', async ({ postCopy }, { skip }) => {
    needsQemu(skip);
    const stream = await streamOf(postCopy);
    const qemu = await startQemu(['-incoming', 'defer']);
    const { socket, shut } = await arriveAt(qemu, () => parse(stream, new Drained()).blocks);
    socket.write(parse(stream, new Relay()).bytes);
    expect(await shut).toBe(0);
    await until(async () => (await runState(qemu.qmp)).running);
  });

  it.for(BOTH_WAYS)('that came by $from goes on by $way, and the guest runs', async ({ postCopy, to }, { skip }) => {
    needsQemu(skip);
    const guest = parse(await streamOf(postCopy), new Drained());
    const qemu = await startQemu(['-incoming', 'defer']);
    const { socket, shut } = await arriveAt(qemu, () => guest.blocks);
    guest.write((bytes) => socket.write(bytes), to);
    expect(await shut).toBe(0);
    await until(async () => (await runState(qemu.qmp)).running);
    expect((await migrationState(qemu.qmp)).status).toBe('completed');
  });

  it.for([
    { name: 'q35', machine: ['-M', 'q35', '-m', '16'] },
    {
      name: 'with devices',
      machine: ['-M', 'pc,usb=on', '-m', '16', '-smp', '2', ...DEVICES.flatMap((device) => ['-device', device])],
    },
  ])('of another machine moves as well: $name', async ({ machine }, { skip }) => {
    needsQemu(skip);
    for (const postCopy of [false, true]) {
      const guest = parse(await record(postCopy, machine), new Drained());
      const qemu = await startQemu(['-incoming', 'defer'], machine);
      const { socket, shut } = await arriveAt(qemu, () => guest.blocks);
      guest.write((bytes) => socket.write(bytes), !postCopy);
      expect(await shut).toBe(0);
      await until(async () => (await runState(qemu.qmp)).running);
    }
  });

  it.for(['multifd', 'x-ignore-shared'])(
    'is refused if it has what nobody here understands: %s',
    async (name, { skip }) => {
      needsQemu(skip);
      const qemu = await startQemu([]);
      await setCapabilities(qemu.qmp, { [name]: true });
      const refused = { code: 'IMAGE', message: expect.stringContaining(`turn the capability ${name} off`) };
      await expect(drain(qemu, false)).rejects.toMatchObject(refused);
      // And the guest has lost nothing by that.
      await until(async () => (await runState(qemu.qmp)).running);
    },
  );
});

describe('a damaged stream', () => {
  it.each([
    ['pre-copy', PRE_COPY],
    ['post-copy', POST_COPY],
  ])('is refused with a reason, or means what is written of it: by hand, %s', (_, stream) => {
    const { refused, meant } = tryMutations(stream, scale(3000), 11);
    expect(refused).toBeGreaterThan(300);
    expect(meant).toBeGreaterThan(300);
  });

  it.for(WAYS)(
    'is refused with a reason, or means what is written of it: $way of a real QEMU',
    async ({ postCopy }, { skip }) => {
      needsQemu(skip);
      // With few pages, whose contents matter to nobody, there is time for more damage.
      const stream = parse(await streamOf(postCopy), new Relay(12)).bytes;
      const { refused, meant } = tryMutations(stream, scale(1500), 12);
      expect(refused).toBeGreaterThan(100);
      expect(meant).toBeGreaterThan(100);
    },
  );

  it.for(WAYS)('is refused with a reason, as it was recorded: $way', async ({ postCopy }, { skip }) => {
    needsQemu(skip);
    const { refused, meant } = tryMutations(await streamOf(postCopy), scale(20), 13);
    expect(refused + meant).toBe(scale(20));
  });
});
