/**
 * How Node is started for an agent, besides what every command gets. The young generation of the heap at its smallest: an
 * agent allocates little at a time, and saves a tenth of its memory (106 MB resident instead of 115 with no pods). The
 * launcher does the same for `weft agent`.
 */
export const AGENT_NODE_FLAGS = ['--max-semi-space-size=1'];
