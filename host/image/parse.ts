// NAME=IMAGE, as it stands on a command line: the name of a VM in the migration, and where its memory is.
import { AbdmError } from '../../bindings/errors.js';
import { FileSource } from './file.js';
import { FileSink, type LeftOver } from './filesink.js';
import { openGuest } from './guest.js';
import { openWaitingGuest } from './guestsink.js';
import type { ImageShape, ImageSink, ImageSource } from './image.js';
import { openProcess } from './process.js';
import { openIncomingQemu } from './qemu/sink.js';
import { openQemu } from './qemu/source.js';

/** NAME=SCHEME:PLACE in its parts. */
export interface ImageSpec {
  readonly name: string;
  /** `file`, `process`, `guest`, `qemu`. */
  readonly scheme: string;
  /** What stands behind the colon: a path, a pid, a socket. */
  readonly place: string;
}

interface Scheme {
  /** For messages. */
  readonly form: string;
  /** It runs, and goes on elsewhere. */
  readonly isGuest?: true;
  /** How somebody lets go on what stays stopped: a command. */
  goOn?(place: string): string;
  /** Says what is wrong with a place, if anything is. */
  check?(place: string): string | undefined;
  openSource?(place: string): ImageSource | Promise<ImageSource>;
  openSink?(place: string, shape: ImageShape, left?: LeftOver): ImageSink | Promise<ImageSink>;
}

const SCHEMES: Readonly<Record<string, Scheme>> = {
  file: {
    form: 'file:PATH',
    openSource: (path) => new FileSource(path),
    openSink: (path, { bytes }, left) => new FileSink(path, bytes, left),
  },
  process: {
    form: 'process:PID',
    check: (pid) => (/^[1-9]\d{0,9}$/.test(pid) ? undefined : `"${pid}" is not the number of a process`),
    goOn: (pid) => `kill -CONT ${pid}`,
    openSource: (pid) => openProcess(Number(pid)),
  },
  guest: {
    form: 'guest:SOCKET',
    isGuest: true,
    goOn: (socket) => `abdm guest --socket ${socket} --ask resume`,
    openSource: openGuest,
    openSink: (socket, { bytes }, left) => openWaitingGuest(socket, bytes, left),
  },
  qemu: {
    form: 'qemu:QMP_SOCKET',
    isGuest: true,
    goOn: (socket) => `echo '{"execute":"qmp_capabilities"}{"execute":"cont"}' | socat -t1 - UNIX-CONNECT:${socket}`,
    openSource: openQemu,
    openSink: openIncomingQemu,
  },
};

const FORMS = Object.values(SCHEMES).map(({ form }) => form);

/** @throws AbdmError USAGE that says what is wrong with `text`, and what is known. */
export function parseImage(text: string): ImageSpec {
  const usage = (what: string) => new AbdmError('USAGE', `${text}: ${what}`);
  // Names stand in messages, on wires and in file names.
  const match = /^([A-Za-z0-9][A-Za-z0-9._-]{0,63})=(.*)$/s.exec(text);
  if (!match) throw usage('expected NAME=IMAGE, where NAME is up to 64 letters, digits, ".", "_" and "-"');
  const [, name, image] = match;
  const colon = image!.indexOf(':');
  const known = `an image is one of ${FORMS.join(', ')}`;
  if (colon < 0) throw usage(`"${image}" does not say what kind of image it is; ${known}`);
  const scheme = image!.slice(0, colon);
  const place = image!.slice(colon + 1);
  if (!Object.hasOwn(SCHEMES, scheme)) throw usage(`"${scheme}:" is not known; ${known}`);
  const { form, check } = SCHEMES[scheme]!;
  if (place === '' || place.includes('\0')) throw usage(`expected ${form}`);
  const wrong = check?.(place);
  if (wrong) throw usage(`${wrong}; expected ${form}`);
  return { name: name!, scheme, place };
}

/** Whether it is of a kind that runs, and goes on elsewhere. */
export function isGuestSpec({ scheme }: ImageSpec): boolean {
  return SCHEMES[scheme]?.isGuest ?? false;
}

/** The command that lets it go on, where it stays stopped; null: it never is. */
export function howToGoOn({ scheme, place }: ImageSpec): string | null {
  return SCHEMES[scheme]?.goOn?.(place) ?? null;
}

/** Opens what `spec` names for reading; a process is stopped by this, and a guest runs on. @throws AbdmError IMAGE, USAGE. */
export async function openSource(spec: ImageSpec): Promise<ImageSource> {
  const open = SCHEMES[spec.scheme]?.openSource;
  if (!open) throw cannot(spec, 'be read from', 'openSource');
  return open(spec.place);
}

/**
 * How to begin an image where `spec` says, once it is known how large it is; that throws IMAGE.
 * @throws AbdmError USAGE if it is of a kind that cannot be written to.
 */
export function sinkOpener(spec: ImageSpec): (shape: ImageShape, left?: LeftOver) => ImageSink | Promise<ImageSink> {
  const open = SCHEMES[spec.scheme]?.openSink;
  if (!open) throw cannot(spec, 'be written to', 'openSink');
  return (shape, left) => open(spec.place, shape, left);
}

function cannot({ name, scheme, place }: ImageSpec, what: string, ability: 'openSource' | 'openSink'): AbdmError {
  const able = Object.values(SCHEMES).filter((candidate) => candidate[ability]);
  const forms = able.map(({ form }) => form).join(', ');
  return new AbdmError('USAGE', `${name}=${scheme}:${place}: this image cannot ${what}; use ${forms}`);
}
