package fleet

import "testing"

// One iteration is the life of a quiet fleet of 1,024 with 24 puts.
func BenchmarkSurvey(b *testing.B) {
	for b.Loop() {
		out, _, err := Survey(Config{Seed: 1, Nodes: 1024, Zones: 3, Keys: 200, ValueBytes: 100}, 24)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(out.Events), "ns/event")
	}
}
