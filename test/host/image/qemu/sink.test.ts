// A guest of a real QEMU, without a kernel, comes to another one page by page.
import { describe, expect, it } from 'vitest';
import { migrationState, runState } from '#abdm/host/qemu/monitor.js';
import { needsQemu, until } from '../../qemu/qemu.js';
import { opened, small, waiting } from './sink-scene.js';

describe('a guest', () => {
  it('has all of its memory before it runs', async ({ skip }) => {
    needsQemu(skip);
    const guest = await small();
    const qemu = await waiting();
    const sink = await opened(qemu.path, guest.shape);
    for (const pfn of guest.shuffled(1)) guest.copy(sink, pfn);
    await sink.load(guest.state);
    await until(async () => (await runState(qemu.qmp)).status === 'paused');
    await sink.run();
    expect((await runState(qemu.qmp)).running).toBe(true);
    await sink.commit();
    expect((await migrationState(qemu.qmp)).status).toBe('completed');
    expect((await runState(qemu.qmp)).running).toBe(true);
  });
});
