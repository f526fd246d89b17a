// Package faultpoint names the moments at which the service must survive a
// crash or a fault. A binary built with the tag faultpoint acts on them, as the
// environment says; in any other build Hit does nothing.
//
// QUICKIMS_FAULTPOINT is a list of name=action, separated by commas. Actions:
//
//	kill   end this process at once with SIGKILL, as a power cut would
//	stop   end this process with SIGSTOP, to be continued or killed
//	error  return an error
//	hold   wait while the file that QUICKIMS_FAULTPOINT_HOLD names is there
//
// An action takes place the first time its point is reached; name@N=action waits
// for the Nth time.
package faultpoint

// The points, in the order in which an import passes them.
const (
	AcceptBeforeCommit = "accept.before-commit" // in the transaction, all rows written
	AcceptCommitted    = "accept.committed"     // before the answer
	Claimed            = "job.claimed"
	Pinned             = "pin.done"
	Inspected          = "inspect.done"
	AdoptBegun         = "adopt.begun"      // the image is saving, no byte is ours
	UploadBegun        = "upload.begun"     // a multipart upload is begun and recorded
	AdoptData          = "adopt.data"       // the disk is ours, the bitmap is not
	AdoptDone          = "adopt.done"       // all bytes are ours, nothing is published
	Published          = "publish.done"     // active, nothing cleaned up
	ExportMarked       = "export.marked"    // an exported object's mark is recorded, the object is not there
	ExportBitmap       = "export.bitmap"    // the bitmap is there, the disk is not
	ExportConverted    = "export.converted" // a converted file is written, nothing is under its name
	ExportDone         = "export.done"      // all is there, the job has not ended
	ExportUndone       = "export.undone"    // a failing export: what it made is gone, it is not FAIL yet
	MarkBegun          = "mark.begun"       // the database has a new generation, the image area's mark has not
	MarkWritten        = "mark.written"     // both have it
	FailBegun          = "fail.begun"       // a failing job: it is not FAIL yet
	FailDone           = "fail.done"        // FAIL, nothing cleaned up
	CleanBegun         = "clean.begun"      // an attempt or image has ended, its bytes are there
	CleanRemoved       = "clean.removed"    // its bytes are gone, its row is not

	HandOverBegun    = "handover.begun"    // the new process has the listeners
	HandOverPrepared = "handover.prepared" // and its configuration is good
	HandOverYielded  = "handover.yielded"  // the old one runs no jobs any more
	HandOverOpened   = "handover.opened"   // the new one has opened everything
	HandOverReceived = "handover.received" // it has the connections
	HandOverGo       = "handover.go"       // it was told to go on and did not say that it does
)

// Import lists the points of an import that succeeds.
var Import = []string{
	AcceptBeforeCommit, AcceptCommitted, Claimed, Pinned, Inspected,
	AdoptBegun, AdoptData, AdoptDone, Published,
}

// Mark lists the points of a move of the owner mark.
var Mark = []string{MarkBegun, MarkWritten}

// HandOver lists the points of the process that takes over.
var HandOver = []string{HandOverBegun, HandOverPrepared, HandOverYielded, MarkBegun, MarkWritten, HandOverOpened, HandOverReceived, HandOverGo}

// Export lists the points of an export that succeeds, of an image with a bitmap.
var Export = []string{ExportMarked, ExportBitmap, ExportDone, Published}

// ExportConversion lists those of one that converts.
var ExportConversion = []string{ExportMarked, ExportConverted, ExportDone}

// ExportFailure lists those of one that fails.
var ExportFailure = []string{FailBegun, ExportUndone, FailDone}

// Failure lists the points of an import that fails.
var Failure = []string{FailBegun, FailDone}

// Deletion lists the points of a deletion.
var Deletion = []string{CleanBegun, CleanRemoved}
