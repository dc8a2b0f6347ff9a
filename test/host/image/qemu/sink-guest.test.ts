// A guest that checks all of its memory comes to another QEMU page by page, and never notices; unless a page was not what it was.
import { expect, it } from 'vitest';
import { Drained, parse } from '../../qemu/events.js';
import { buildGuest, needsGuest, saidOn } from '../../qemu/guest/guest.js';
import { drain, startQemu, until } from '../../qemu/qemu.js';
import { opened, Standing, waiting } from './sink-scene.js';

// Two QEMUs that emulate every instruction, on whatever machine this is.
const LIMIT_MS = 240_000;
const JUNK = new Uint8Array(4096).fill(0x5a);

it('goes on where it stopped, and finds a page that was changed on the way', { timeout: 3 * LIMIT_MS }, async ({
  skip,
}) => {
  needsGuest(skip);
  const model = buildGuest(32);
  const here = model.serial('here');
  const source = await startQemu([], model.machine(here));
  await until(async () => saidOn(here).rounds >= 2, LIMIT_MS);
  await source.qmp.execute('stop');
  const guest = new Standing(parse(await drain(source, true), new Drained()));
  await source.end();
  expect(saidOn(here)).toMatchObject({ boots: 1, fails: 0 });

  const order = guest.shuffled(2);
  // What it fills memory with is nowhere else.
  const its = order.find(
    (pfn) =>
      Buffer.from(guest.page(pfn) ?? [])
        .toString('latin1')
        .split('what it is\n').length > 5,
  )!;
  for (const isChanged of [false, true]) {
    const there = model.serial(`there ${isChanged}`);
    const qemu = await waiting(model.machine(there));
    const sink = await opened(qemu.path, guest.shape);
    for (const pfn of order.slice(0, 8_000)) sink.write(pfn, JUNK, 0, 4096);
    for (const pfn of order.slice(0, 4_000)) sink.forget(pfn, 1);
    for (const pfn of order.slice(2000, 40_000)) guest.copy(sink, pfn);
    if (isChanged) {
      const bytes = Uint8Array.from(guest.page(its)!);
      bytes[2000]! ^= 1;
      sink.write(its, bytes, 0, 4096);
    }
    const rest = guest.rest(sink, order, 4);
    await sink.load(guest.state);
    await sink.run();
    const asked = await rest;
    await sink.commit();
    expect(asked).toBeGreaterThan(0);
    await until(async () => saidOn(there).rounds >= 3 || saidOn(there).fails > 0, LIMIT_MS);
    expect(saidOn(there)).toMatchObject({ boots: 0, fails: isChanged ? 1 : 0 });
    await qemu.end();
  }
});
