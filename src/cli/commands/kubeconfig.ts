import { labKubeconfig } from '../../lab/lab.ts';

/** `weft kubeconfig`: the path, for `export KUBECONFIG=$(weft kubeconfig)`. */
export function kubeconfig(options: { lab: string }): void {
  process.stdout.write(`${labKubeconfig(options.lab)}\n`);
}
