/*---------------------------------------------------------------------------*\
License
    Apache-2.0; see LICENSE. Links OpenFOAM (GPL-3.0-or-later) when it is built.
\*---------------------------------------------------------------------------*/

#include "penstockStream.H"
#include "addToRunTimeSelectionTable.H"

// * * * * * * * * * * * * * * Static Data Members * * * * * * * * * * * * * //

namespace Foam
{
namespace functionObjects
{
    defineTypeNameAndDebug(penstockStream, 0);
    addToRunTimeSelectionTable(functionObject, penstockStream, dictionary);
}
}


// * * * * * * * * * * * * * Private Member Functions  * * * * * * * * * * * //

Foam::string Foam::functionObjects::penstockStream::listed
(
    const wordList& names
)
{
    string text("(");

    forAll(names, i)
    {
        text += (i ? " " : "") + names[i];
    }

    return text + ")";
}


Foam::string Foam::functionObjects::penstockStream::errorOf
(
    const penstock_status status
) const
{
    return status == PENSTOCK_OK ? string() : string(penstock_error(stream_));
}


Foam::string Foam::functionObjects::penstockStream::open()
{
    string problem
    (
        errorOf
        (
            penstock_connect
            (
                &stream_,
                connect_.empty() ? nullptr : connect_.c_str(),
                uint32_t(Pstream::parRun() ? Pstream::myProcNo() : 0),
                uint32_t(Pstream::parRun() ? Pstream::nProcs() : 1)
            )
        )
    );

    if (problem.empty())
    {
        problem = errorOf(penstock_begin(stream_));
    }
    if (problem.empty())
    {
        problem = findMeshes();
    }
    if (problem.empty())
    {
        problem = announce();
    }
    if (problem.empty())
    {
        problem = sendMesh();
    }
    if (problem.empty())
    {
        Info<< type() << " " << name() << ": streaming " << listed(fields_).c_str()
            << " of " << parts_[0].nCells << " cells, simulation "
            << penstock_simulation(stream_) << " attempt "
            << penstock_attempt(stream_) << endl;
    }

    return problem;
}


Foam::string Foam::functionObjects::penstockStream::sendStep()
{
    sentIndex_ = runTime_.timeIndex();

    const string problem(stream_ ? string() : open());

    return problem.empty() ? sendFields() : problem;
}


void Foam::functionObjects::penstockStream::raise(const string& problem) const
{
    if (!problem.empty())
    {
        penstockCompat::neverThrow();
        FatalErrorInFunction
            << "penstock: " << problem.c_str() << nl
            << exit(FatalError);
    }
}


void Foam::functionObjects::penstockStream::finish()
{
    if (finished_)
    {
        return;
    }
    finished_ = true;

    if (!stream_)
    {
        raise
        (
            "the run has ended before any time step was sent: executeInterval"
            " (or timeStart) in the entry " + name()
          + " of controlDict lies beyond the run ([solver] every of the study"
            " file sets executeInterval); sendLast true ([solver] last = true)"
            " sends the state at the end"
        );
    }

    raise(errorOf(penstock_finish(stream_)));

    Info<< type() << " " << name() << ": " << step_
        << " time steps streamed" << endl;
}


// * * * * * * * * * * * * * * * * Constructors  * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::penstockStream
(
    const word& name,
    const Time& runTime,
    const dictionary& dict
)
:
    PENSTOCK_FUNCTION_OBJECT(name, runTime),
    runTime_(runTime),
    fields_(),
    connect_(),
    every_(1),
    sendInitial_(false),
    stream_(nullptr),
    step_(0),
    sentIndex_(-1),
    finished_(false),
    sendLast_(false),
    region_(),
    processorOrder_(false),
    parts_(),
    sources_()
{
    read(dict);

    if (sendInitial_)
    {
        raise(sendStep());
    }
}


// * * * * * * * * * * * * * * * * Destructor  * * * * * * * * * * * * * * * //

Foam::functionObjects::penstockStream::~penstockStream()
{
    // OpenFOAM's timeControl calls end() only if the function object is also
    // executed or written at the last time step
    if
    (
        runTime_.timeIndex() != runTime_.startTimeIndex()
     && runTime_.value() > runTime_.endTime().value() - 0.5*runTime_.deltaTValue()
    )
    {
        finish();
    }
    else if (stream_ && !finished_)
    {
        raise
        (
            "the stream ends at time " + Foam::name(runTime_.value())
          + ", before the run does: the entry " + name() + " of controlDict was"
            " removed, disabled or given another type while the solver ran"
            " (runTimeModifiable), or the solver has left its time loop"
        );
    }

    penstock_close(stream_);
}


// * * * * * * * * * * * * * * * Member Functions  * * * * * * * * * * * * * //

Foam::wordList Foam::functionObjects::penstockStream::fields() const
{
    return wordList();
}


bool Foam::functionObjects::penstockStream::read(const dictionary& dict)
{
    functionObject::read(dict);

    const string entry(" in the entry " + name() + " of controlDict");

    if (!dict.found("fields"))
    {
        raise("no 'fields'" + entry + ": name those to stream: fields (U p);");
    }
    const wordList fields(dict.lookup("fields"));
    const word region
    (
        dict.lookupOrDefault<word>("region", polyMesh::defaultRegion)
    );

    if (fields.empty())
    {
        raise("no fields" + entry + ": name those to stream: fields (U p);");
    }
    if (stream_ && (fields != fields_ || region != region_))
    {
        raise
        (
            "fields and region cannot change while they are streamed: they were "
          + listed(fields_) + " of " + region_ + ", now " + listed(fields)
          + " of " + region
        );
    }

    const word control
    (
        dict.lookupOrDefault<word>("executeControl", "timeStep")
    );
    const word writing(dict.lookupOrDefault<word>("writeControl", "timeStep"));

    // OpenFOAM also executes a function object whenever it writes, by default
    // at every time step; execute() therefore applies executeInterval itself
    every_ = 1;
    if (control == "timeStep")
    {
        every_ = max(label(1), dict.lookupOrDefault<label>("executeInterval", 1));
    }
    else if (writing != "none")
    {
        raise
        (
            "executeControl " + control + " needs writeControl none; beside it"
          + entry + ", or OpenFOAM would send at each write too"
        );
    }

    const word order
    (
        dict.lookupOrDefault<word>("cellOrder", "undecomposed")
    );
    if (order != "undecomposed" && order != "processors")
    {
        raise("cellOrder " + order + entry + ": undecomposed or processors");
    }

    fields_ = fields;
    region_ = region;
    processorOrder_ = order == "processors";
    connect_ = dict.lookupOrDefault<fileName>("connect", fileName());
    connect_.expand();
    sendInitial_ = dict.lookupOrDefault<bool>("sendInitial", false);
    sendLast_ = dict.lookupOrDefault<bool>("sendLast", false);

    if (sendLast_ && (control != "timeStep" || dict.found("timeEnd")))
    {
        raise
        (
            "sendLast" + entry + " works neither with timeEnd nor with another"
            " executeControl than timeStep: OpenFOAM would not announce the end"
        );
    }

    return true;
}


bool Foam::functionObjects::penstockStream::execute()
{
    // Solvers may run the function objects several times in a time step
    if
    (
        sentIndex_ != runTime_.timeIndex()
     && runTime_.timeIndex() % every_ == 0
    )
    {
        raise(sendStep());
    }

    return true;
}


bool Foam::functionObjects::penstockStream::write()
{
    return true;
}


bool Foam::functionObjects::penstockStream::end()
{
    if
    (
        sendLast_ && !finished_
     && sentIndex_ != runTime_.timeIndex()
     && runTime_.timeIndex() != runTime_.startTimeIndex()
    )
    {
        raise(sendStep());
    }

    finish();
    return true;
}


// ************************************************************************* //
