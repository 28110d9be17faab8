/**
 * How Node is started for an agent, besides what every command gets; the launcher does the same for `weft agent`. An agent
 * allocates little at a time: the young generation of its heap is the smallest there is. And it may collect its garbage when
 * it has nothing to do (src/kernel/worker.ts). docs/benchmarks.md has what an agent then weighs.
 */
export const AGENT_NODE_FLAGS = ['--max-semi-space-size=1', '--expose-gc'];
