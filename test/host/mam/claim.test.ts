// Claims by majority: what each voter says, and what follows.
import { describe, expect, test } from 'vitest';
import { claim, claimError, type Voter } from '#abdm/host/mam/claim.js';

type Says = 'yes' | 'no' | 'dead' | 'silent';

const voter = (says: Says, i: number): Voter => ({
  address: `10.0.0.${i}:7000`,
  dead: says === 'dead',
  claim: async () => {
    if (says === 'dead' || says === 'silent') throw new Error(says);
    return { granted: says === 'yes', by: says === 'yes' ? 'me' : 'pid 7 on host3', sinceMs: 65_000 };
  },
});

describe('a claim', () => {
  test.each<[boolean, Says[]]>([
    [true, ['yes']],
    [true, ['yes', 'yes', 'no']],
    [true, ['yes', 'yes', 'silent']],
    [true, ['yes', 'yes', 'yes', 'silent', 'silent']],
    [true, ['yes', 'dead', 'dead']],
    [true, ['yes', 'yes', 'silent', 'dead', 'dead']],
    [false, ['no']],
    [false, ['silent']],
    [false, ['yes', 'no']],
    [false, ['yes', 'silent']],
    [false, ['yes', 'silent', 'dead']],
    [false, ['yes', 'yes', 'silent', 'silent', 'no']],
    [false, ['dead', 'dead', 'dead']],
    [false, []],
  ])('is granted: %s, by voters that say %s', async (granted, says) => {
    const verdict = await claim(says.map(voter), 'token', 'me');
    expect(verdict.granted).toBe(granted);
    expect(verdict.voters).toBe(says.filter((one) => one !== 'dead').length);
    expect(verdict.silent.length).toBe(says.filter((one) => one === 'silent').length);
  });

  test('that is denied says who has it, and since when; or who does not answer', async () => {
    const denied = claimError('web', await claim([voter('no', 1), voter('silent', 2)], 'token', 'me'));
    expect(denied).toMatchObject({ code: 'CLAIMED', message: expect.stringMatching(/pid 7 on host3 for 65 s/) });
    const unheard = claimError('web', await claim([voter('yes', 1), voter('silent', 2)], 'token', 'me'));
    expect(unheard).toMatchObject({ code: 'PEER_UNREACHABLE', message: expect.stringMatching(/1 of 2.*10\.0\.0\.2/) });
  });
});
