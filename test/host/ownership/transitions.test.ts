// Every transition of the two machines, as tables: where each word leads from each state. '.': nowhere, it is passed over. '!': it must not be said, and throws.
import { describe, expect, test } from 'vitest';
import { Giving } from '#abdm/host/ownership/giving.js';
import { Taking } from '#abdm/host/ownership/taking.js';

const MINE = 'a1';
const OTHER = 'b2';

/** How each row's state is come to. */
const givings: Record<string, (giving: Giving) => void> = {
  running: () => {},
  stopped: (giving) => giving.stopped(),
  offered: (giving) => {
    giving.stopped();
    giving.offered();
  },
  accepted: (giving) => {
    givings.offered!(giving);
    giving.loaded(MINE);
  },
  given: (giving) => {
    givings.accepted!(giving);
    giving.give();
  },
  // Nobody is connected.
  'given, alone': (giving) => {
    givings.given!(giving);
    giving.linkLost();
  },
  // Whoever is connected has another guest.
  'given, other': (giving) => {
    givings['given, alone']!(giving);
    giving.reported({ state: 'waiting', guest: OTHER });
  },
  'nodes, given': (giving) => {
    givings.given!(giving);
    giving.giveToNodes();
  },
  'nodes, offered': (giving) => {
    givings.offered!(giving);
    giving.giveToNodes();
  },
  // Its guest took an execution state that is not the last one.
  'nodes, older': (giving) => {
    givings.accepted!(giving);
    giving.linkLost();
    giving.resumed();
    giving.stopped();
    giving.giveToNodes();
  },
  left: (giving) => {
    givings.given!(giving);
    giving.ran();
  },
};

const said: Record<string, (giving: Giving) => unknown> = {
  stopped: (giving) => giving.stopped(),
  resumed: (giving) => giving.resumed(),
  offered: (giving) => giving.offered(),
  loaded: (giving) => giving.loaded(MINE),
  give: (giving) => giving.give(),
  toNodes: (giving) => giving.giveToNodes(),
  ran: (giving) => giving.ran(),
  refused: (giving) => giving.refused(),
  linkLost: (giving) => giving.linkLost(),
  'mine waits': (giving) => giving.reported({ state: 'waiting', guest: MINE }),
  'mine loaded': (giving) => giving.reported({ state: 'loaded', guest: MINE }),
  'mine runs': (giving) => giving.reported({ state: 'running', guest: MINE }),
  'other waits': (giving) => giving.reported({ state: 'waiting', guest: OTHER }),
  'other loaded': (giving) => giving.reported({ state: 'loaded', guest: OTHER }),
  'other runs': (giving) => giving.reported({ state: 'running', guest: OTHER }),
};

// RUN: nowhere, and it has to be said again.
const GIVING = `
                 stopped  resumed  offered  loaded    give   toNodes  ran   refused  linkLost  mine waits  mine loaded  mine runs  other waits  other loaded  other runs
running          stopped  !        !        .         !      !        .     .        .         .           .            .          .            .             .
stopped          !        running  offered  .         !      given    .     .        .         .           .            .          .            .             .
offered          !        running  !        accepted  !      given    .     stopped  stopped   .           .            .          .            .             .
accepted         !        running  !        .         given  given    .     stopped  stopped   .           .            .          .            .             .
given            !        !        !        .         !      .        left  stopped  .         stopped     RUN          left       .            .             .
given, alone     !        !        !        .         !      .        .     .        .         stopped     RUN          left       .            .             .
given, other     !        !        !        .         !      .        .     .        .         stopped     RUN          left       .            .             .
nodes, given     !        !        !        .         !      .        left  .        .         .           RUN          left       .            .             left
nodes, offered   !        !        !        .         !      .        left  .        .         .           .            left       .            .             left
nodes, older     !        !        !        .         !      .        left  .        .         .           .            left       .            .             left
left             !        !        !        .         !      !        .     .        .         .           .            .          .            .             .
`;

/** The cells of a table: rows by name, columns in order, two spaces or more between them. */
function readTable(table: string): { from: string; word: string; to: string }[] {
  const [head, ...rows] = table
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/ {2,}/));
  return rows.flatMap(([from, ...cells]) => cells.map((to, i) => ({ from: from!, word: head![i]!, to })));
}

describe('at the source, a VM that is', () => {
  const cells = readTable(GIVING);

  test('in any state is in the table, with every word', () => {
    expect(cells.map(({ from, word }) => `${from}: ${word}`)).toEqual(
      Object.keys(givings).flatMap((from) => Object.keys(said).map((word) => `${from}: ${word}`)),
    );
  });

  test.each(cells)('$from: $word -> $to', ({ from, word, to }) => {
    const giving = new Giving();
    givings[from]!(giving);
    const before = giving.state;
    expect(giving.isOurs).toBe(!/given|nodes|left/.test(from));
    if (to === '!') {
      expect(() => said[word]!(giving)).toThrow(/cannot become/);
      expect(giving.state).toBe(before);
      return;
    }
    expect(said[word]!(giving) ?? false).toBe(to === 'RUN');
    expect(giving.state).toBe(to === '.' || to === 'RUN' ? before : to);
  });

  test('offered again is accepted by the answer to the last execution state', () => {
    const giving = new Giving();
    givings.offered!(giving);
    giving.resumed();
    giving.stopped();
    giving.offered();
    giving.loaded(MINE);
    expect(giving.state).toBe('offered');
    giving.loaded(MINE);
    expect(giving.state).toBe('accepted');
    // What is said on one link is not answered on the next.
    giving.linkLost();
    giving.offered();
    giving.loaded(OTHER);
    expect([giving.state, giving.taker]).toEqual(['accepted', OTHER]);
    // What nobody asked for says nothing.
    const quiet = new Giving();
    quiet.loaded(MINE);
    quiet.stopped();
    quiet.offered();
    expect(quiet.state).toBe('offered');
  });
});

const takings: Record<string, () => Taking> = {
  waiting: () => new Taking(false),
  loaded: () => {
    const taking = new Taking(false);
    taking.loaded();
    return taking;
  },
  begun: () => {
    const taking = takings.loaded!();
    taking.run();
    return taking;
  },
  running: () => {
    const taking = takings.begun!();
    taking.ran();
    return taking;
  },
  'has run': () => new Taking(true),
  refused: () => {
    const taking = new Taking(false);
    taking.refuse();
    return taking;
  },
  lost: () => new Taking(false, true),
};

// `report`: what the source is told.
const TAKING = `
          loaded  run      ran      notRun   refuse   report
waiting   loaded  !        !        !        refused  waiting
loaded    .       running  !        !        refused  loaded
begun     !       !        .        loaded   !        loaded
running   !       !        .        !        !        running
has run   !       !        .        !        !        running
refused   !       !        !        !        .        waiting
lost      !       !        !        !        .        waiting
`;

describe('at the destination, a VM that is', () => {
  const cells = readTable(TAKING);

  test('in any state is in the table, with every word', () => {
    expect(cells.map(({ from, word }) => `${from}: ${word}`)).toEqual(
      Object.keys(takings).flatMap((from) =>
        ['loaded', 'run', 'ran', 'notRun', 'refuse', 'report'].map((word) => `${from}: ${word}`),
      ),
    );
  });

  test.each(cells)('$from: $word -> $to', ({ from, word, to }) => {
    const taking = takings[from]!();
    const before = taking.state;
    if (word === 'report') expect(taking.report).toBe(to);
    else {
      const say = () => taking[word as 'loaded' | 'run' | 'ran' | 'notRun' | 'refuse']();
      if (to === '!') expect(say).toThrow(/cannot become/);
      else say();
      expect(taking.state).toBe(to === '.' || to === '!' ? before : to);
      expect(taking.hasRun).toBe(from === 'running' || from === 'has run' || (from === 'begun' && word === 'ran'));
    }
  });
});
