// Going on with what an earlier destination of the same images has left, VM by VM: how each image is opened, and what its guest says of itself by now.
//
//   noted      the guest                    then
//   running    the same, and it has run     it is ours, and goes on
//   running    the same, and it has not     it was not begun before we died, and was not told to since: as if it had not been noted
//   running    another                      the one that ran is gone
//   any other  has not run                  all of it comes anew
//   any other  has run                      it is not ours: nothing is touched

import { AbdmError } from '../../bindings/errors.js';
import type { LeftOver } from '../image/filesink.js';
import { imageError } from '../image/image.js';
import type { VmShape } from '../mam/catalog.js';
import { type ImageTarget, NOWHERE } from './images.js';
import type { Session } from './session.js';
import type { State, VmNote } from './state.js';
import type { Failure } from './verdict.js';

/** Nothing is known of these yet. */
export function openNotes(vms: readonly VmShape[]): VmNote[] {
  return vms.map(() => ({ guest: null, fate: 'open' }));
}

/** A guest of it has run. */
export function hasRun({ notes }: State): boolean {
  return notes.some(({ fate }) => fate === 'running');
}

/** The target, opened for what is known of its VM. `left`: what becomes of a file that is there in part. */
export function resumed(target: ImageTarget, { vms, notes, frames }: State, left: LeftOver): ImageTarget {
  const note = notes[vms.findIndex(({ name }) => name === target.name)];
  if (note?.fate === 'done') return { ...target, open: () => NOWHERE };
  // A guest that has not run has nothing that is worth keeping, as long as there is somebody to send it again.
  const isAnew = note?.guest != null && frames === null;
  const how = note?.fate === 'running' ? 'keep' : isAnew ? 'replace' : left;
  return { ...target, open: (shape) => target.open(shape, how) };
}

/** What is to be noted now. @throws {AbdmError} IMAGE if a guest has run something else. */
export function recognise({ vms, notes }: State, session: Session): VmNote[] {
  return notes.map((note, vm) => {
    const sink = session.guest(vm);
    if (!sink) return note;
    const isSame = sink.guestId === note.guest;
    if (sink.hasRun && !(note.fate === 'running' && isSame)) {
      const what = `${sink.description} has run, and what runs there is not ${vms[vm]!.name} of this migration`;
      throw imageError(what, 'start a new guest');
    }
    if (note.fate === 'running' && (sink.hasRun || !isSame)) return note;
    return { guest: sink.guestId, fate: note.fate === 'running' ? 'open' : note.fate };
  });
}

/** VMs that are over already. */
export function failedBefore({ notes }: State, session: Session): [number, Failure][] {
  return notes.flatMap(({ guest, fate }, vm): [number, Failure][] => {
    if (fate === 'refused') {
      const text = 'an earlier abdm merge has told its source that it never runs here';
      return [[vm, { what: 'source', error: new AbdmError('PEER_ABORTED', text) }]];
    }
    const sink = session.guest(vm);
    if (fate !== 'running' || !sink || sink.guestId === guest) return [];
    const error = imageError(`the guest that ran is gone, and ${sink.description} is another one`, 'its data is lost');
    return [[vm, { what: 'gone', error }]];
  });
}
