import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { AbdmError } from '#abdm/bindings/errors.js';
import { openSource, parseImage, sinkOpener } from '#abdm/host/image/parse.js';
import { tempDir } from '../temp.js';

test.each([
  ['a=file:disk.img', { name: 'a', scheme: 'file', place: 'disk.img' }],
  ['vm-1.main_x=file:/a/b=c:d e', { name: 'vm-1.main_x', scheme: 'file', place: '/a/b=c:d e' }],
  ['db=qemu:/run/qmp', { name: 'db', scheme: 'qemu', place: '/run/qmp' }],
  ['web=process:4711', { name: 'web', scheme: 'process', place: '4711' }],
])('%s', (text, spec) => {
  expect(parseImage(text)).toEqual(spec);
});

test.each([
  ['', /expected NAME=IMAGE/],
  ['file:x', /expected NAME=IMAGE/],
  ['file:a=b', /expected NAME=IMAGE/],
  ['=file:x', /expected NAME=IMAGE/],
  ['../up=file:x', /expected NAME=IMAGE/],
  [`${'a'.repeat(65)}=file:x`, /expected NAME=IMAGE/],
  ['a=disk.img', /what kind of image it is; an image is one of file:PATH, process:PID, guest:SOCKET/],
  ['a=criu:/run', /"criu:" is not known; an image is one of file:PATH, process:PID, guest:SOCKET, qemu:QMP_SOCKET/],
  ['a=constructor:x', /"constructor:" is not known/],
  ['a=file:', /expected file:PATH/],
  ['a=file:x\0y', /expected file:PATH/],
  ['a=process:init', /"init" is not the number of a process; expected process:PID/],
  ['a=process:-1', /not the number/],
  ['a=process:0', /not the number/],
  ['a=process:12345678901', /not the number/],
])('%j is refused', (text, message) => {
  let thrown: unknown;
  try {
    parseImage(text);
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toMatchObject({ code: 'USAGE', message: expect.stringMatching(message) });
  expect((thrown as AbdmError).message.startsWith(text)).toBe(true);
});

test('a file is opened and made by its name', async () => {
  const dir = tempDir();
  writeFileSync(join(dir, 'in'), 'hello');
  const source = await openSource(parseImage(`a=file:${join(dir, 'in')}`));
  expect(source.bytes).toBe(5);
  await source.close();
  const sink = await sinkOpener(parseImage(`a=file:${join(dir, 'out')}`))({ bytes: 5, regions: [] });
  await sink.discard();
});

test('a process is no place to write to', () => {
  expect(() => sinkOpener(parseImage('a=process:1'))).toThrow(
    /a=process:1: this image cannot be written to; use file:PATH, guest:SOCKET, qemu:QMP_SOCKET$/,
  );
});
