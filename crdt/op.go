package crdt

// An Op is one change on its way to other replicas: it makes its dots known,
// removes cells, and brings one cell at most, or those of a batch. Ops are immutable
// once issued and are shared between links.
type Op struct {
	Dot     Dot    // the op's own dot
	Covers  Dots   // further dots that it stands for, taken over by Coalesce
	Key     string // of the cells concerned; empty if it removes cells of several keys
	Cell    *Cell  // nil for a bare removal; otherwise its Dot, Key and HLC are the op's
	Removes Dots   // the dots whose cells it removes, never its own
	HLC     HLC
	// More is the other cells of a batch, ascending by their dots, which are in Covers and of the op's
	// incarnation; their HLC is the op's. Cell is not nil then, and Key is empty.
	More []*Cell
}

// Bounds of a batch.
const (
	MaxBatchCells = 1024
	MaxBatchBytes = 256 << 10 // of keys, paths and values
)

// Coalesce merges two queued ops on one key into one that has the effect of
// applying older and then newer. It returns nil if the pair may not be merged:
// only an op that removes the older's dot, or that follows a bare removal by
// the same incarnation, may stand for both, because only then is the older's
// cell certainly dead. A batch is left alone: it has many. This is the only way in which an op is ever left out.
func Coalesce(older, newer *Op) *Op {
	if older.Key != newer.Key || len(older.More)+len(newer.More) > 0 {
		return nil
	}
	follows := older.Cell == nil && older.Dot.Inc == newer.Dot.Inc && older.Dot.Seq < newer.Dot.Seq
	if !follows && !newer.Removes.Contains(older.Dot) {
		return nil
	}
	merged := *newer
	merged.Covers = newer.Covers.Union(older.Covers).With(Span{older.Dot.Inc, older.Dot.Seq, older.Dot.Seq})
	merged.Removes = newer.Removes.Union(older.Removes)
	if merged.Removes.Len() > MaxRemoves || merged.Covers.Len() > MaxCovers {
		return nil
	}
	return &merged
}
