// What becomes of a VM when its migration ends at the destination: who has it, and what is done with its image.
import { describe, expect, test } from 'vitest';
import { AbdmError, type AbdmErrorCode } from '#abdm/bindings/errors.js';
import type { Ending } from '#abdm/host/destination/ending.js';
import { type Failure, type Verdict, type VmFacts, verdictOf, worstOf } from '#abdm/host/destination/verdict.js';

const MISSING = { vm: 'a', ranges: [[3, 5]] as const };
const facts = (change: Partial<VmFacts> = {}): VmFacts => ({
  name: 'a',
  pages: 10,
  hasRun: false,
  isOurs: false,
  isInDoubt: false,
  isKept: true,
  isEmpty: false,
  missing: MISSING,
  failure: null,
  ...change,
});
const failed = (code: AbdmErrorCode = 'CANCELLED'): Ending => ({ how: 'failed', error: new AbdmError(code, '') });
const stuck: Ending = { how: 'stuck', error: new AbdmError('PEER_UNREACHABLE', '') };
const lost: Ending = { how: 'lost', error: new AbdmError('FRAME_LOST', ''), lost: [MISSING] };
const whole: Ending = { how: 'whole' };
const alone = (what: Failure['what'], code: AbdmErrorCode = 'IMAGE') => ({
  failure: { what, error: new AbdmError(code, '') },
});

const RUNS = { hasRun: true, isOurs: true };
const OURS = { isOurs: true };
const DOUBT = { isInDoubt: true };
const NO_NODES = { isKept: false };

describe('a VM', () => {
  test.each<[string, Partial<VmFacts>, Ending, Verdict['outcome'], Verdict['image'], boolean]>([
    ['that is whole', OURS, whole, 'completed', 'commit', true],
    ['of the source, when we give up', {}, failed(), 'aborted', 'discard', false],
    ['of the source, and nobody knows', DOUBT, failed(), 'paused-recoverable', 'leave', true],
    ['of the source, and nobody knows, nor keeps it', { ...DOUBT, ...NO_NODES }, failed(), 'aborted', 'discard', false],
    ['of a source that gave up', DOUBT, failed('PEER_ABORTED'), 'aborted', 'discard', false],
    ['of a source that is gone', DOUBT, failed('PEER_GONE'), 'aborted', 'discard', false],
    ['that is ours, when we give up', OURS, failed(), 'paused-recoverable', 'leave', true],
    ['that is ours, and nobody keeps it', { ...OURS, ...NO_NODES }, failed(), 'aborted', 'leave', true],
    [
      'that is ours, nobody keeps it, and nothing has come',
      { ...OURS, ...NO_NODES, isEmpty: true },
      failed(),
      'aborted',
      'discard',
      true,
    ],
    ['that was ours, and somebody else has it', OURS, failed('CLAIMED'), 'aborted', 'discard', false],
    ['that waits for nodes', OURS, stuck, 'paused-recoverable', 'leave', true],
    ['of which pages are lost', OURS, lost, 'aborted', 'leave', true],
    ['of which none is lost', { ...OURS, name: 'b' }, lost, 'completed', 'commit', true],
    ['that runs, when we give up', RUNS, failed(), 'paused-recoverable', 'leave', true],
    [
      'that runs, when we give up, without nodes',
      { ...RUNS, ...NO_NODES },
      failed(),
      'paused-recoverable',
      'leave',
      true,
    ],
    ['that runs, and is whole, when we give up', { ...RUNS, missing: null }, failed(), 'completed', 'commit', true],
    ['that runs, and waits for nodes', RUNS, stuck, 'paused-recoverable', 'leave', true],
    ['that runs, and pages are lost', RUNS, lost, 'aborted', 'leave', true],
  ])('%s', (_, change, ending, outcome, image, isOurs) => {
    expect(verdictOf(facts(change), ending)).toMatchObject({ outcome, image, isOurs });
  });

  test.each<[string, Partial<VmFacts>, Verdict['outcome'], Verdict['image'], boolean]>([
    ['of the source, cannot be written', alone('image'), 'aborted', 'discard', false],
    ['of the source, its guest is gone', alone('gone'), 'aborted', 'discard', false],
    ['of the source, which sends no more of it', alone('source', 'PEER_ABORTED'), 'aborted', 'discard', false],
    ['ours, cannot be written', { ...OURS, ...alone('image') }, 'paused-recoverable', 'leave', true],
    ['ours, its guest is gone', { ...OURS, ...alone('gone') }, 'paused-recoverable', 'leave', true],
    [
      'ours, cannot be written, and nobody keeps it',
      { ...OURS, ...NO_NODES, ...alone('image') },
      'aborted',
      'leave',
      true,
    ],
    ['runs, cannot be written', { ...RUNS, ...alone('image') }, 'paused-recoverable', 'leave', true],
    ['runs, and its guest is gone', { ...RUNS, ...alone('gone') }, 'aborted', 'leave', true],
    [
      'runs, and the source sends no more of it',
      { ...RUNS, ...alone('source', 'PEER_ABORTED') },
      'aborted',
      'leave',
      true,
    ],
    [
      'runs, is whole, and the source sends no more',
      { ...RUNS, missing: null, ...alone('source', 'PEER_ABORTED') },
      'completed',
      'commit',
      true,
    ],
  ])('that ended alone, while the others are whole: %s', (_, change, outcome, image, isOurs) => {
    expect(verdictOf(facts(change), whole)).toMatchObject({ outcome, image, isOurs });
  });

  test('names what is lost, where its guest had it and nobody else does', () => {
    expect(verdictOf(facts(RUNS), lost).lost).toEqual(MISSING);
    expect(verdictOf(facts({ ...RUNS, ...alone('gone') }), whole).lost).toEqual({ vm: 'a', ranges: [[0, 9]] });
    expect(verdictOf(facts({ ...RUNS, ...alone('source') }), whole).lost).toEqual(MISSING);
    expect(verdictOf(facts(RUNS), failed()).lost).toBeNull();
  });
});

test('of several VMs the worst counts: lost, paused, with the source, completed', () => {
  const ending = failed();
  const [taken, paused, gone] = [{}, OURS, { ...RUNS, ...alone('gone') }].map((one) => verdictOf(facts(one), ending));
  const done = verdictOf(facts(), whole);
  expect(worstOf([done, done])).toBe(done);
  expect(worstOf([done, taken!])).toBe(taken);
  expect(worstOf([paused!, taken!, done])).toBe(paused);
  expect(worstOf([taken!, gone!, paused!])).toBe(gone);
});
