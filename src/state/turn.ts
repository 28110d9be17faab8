/**
 * The heartbeat of tables: who has changes to deliver, and in which order.
 *
 * Deliveries happen once per turn of the event loop (after I/O callbacks and all their microtasks), so that thousands
 * of watch events parsed from one socket read are one batch. Within the turn the shallowest tables deliver first, and
 * a table derived from them delivers in the same turn, after all it was derived from: a join of two tables that both
 * derive from a third one never shows a state that no input had. What listeners write to tables that are not derived
 * waits for the next turn, so that a circle of listeners cannot starve the event loop.
 */
export interface Deliverable {
  /** 0 for plain tables; one more than the deepest source for derived ones. */
  readonly depth: number;
  deliver(): void;
}

let thisTurn: Deliverable[][] = [];
let nextTurn: Deliverable[] = [];
let scheduled = false;
/** Depth that is being delivered; −1 outside of deliveries. */
let current = -1;

/** Call at most once until `deliver` is called. */
export function deliverAfterTurn(item: Deliverable): void {
  if (current >= 0 && (item.depth === 0 || item.depth < current)) {
    nextTurn.push(item);
    return;
  }
  const level = thisTurn[item.depth];
  if (level) level.push(item);
  else thisTurn[item.depth] = [item];
  if (!scheduled && current < 0) {
    scheduled = true;
    setImmediate(deliverAll);
  }
}

function deliverAll(): void {
  scheduled = false;
  for (let depth = 0; depth < thisTurn.length; depth++) {
    const level = thisTurn[depth];
    if (!level) continue;
    current = depth;
    // A level grows while it is delivered only by subscriptions made in the meantime; they belong to this turn too.
    for (let i = 0; i < level.length; i++) {
      try {
        level[i]!.deliver();
      } catch (error) {
        // A listener's fault is its own: the others still get their batch, and the process hears of it.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
  current = -1;
  thisTurn = [];
  const waiting = nextTurn;
  nextTurn = [];
  for (const item of waiting) deliverAfterTurn(item);
}
